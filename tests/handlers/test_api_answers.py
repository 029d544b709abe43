"""What an API server says in its headers, and what becomes of it."""

import asyncio
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from cotune.cluster.kinds import PROFILE
from cotune.cluster.objects import ApiError, Objects


@pytest.mark.parametrize(("header", "seconds"), [({"Retry-After": "7"}, 7), ({}, 0), ({"Retry-After": "soon"}, 0)])
def test_how_long_an_api_server_wants_to_be_left_alone_is_known(
    tmp_path: Path, header: dict[str, str], seconds: float
) -> None:
    async def busy(_: web.Request) -> web.Response:
        body = {"kind": "Status", "reason": "TooManyRequests", "message": "later"}
        return web.json_response(body, status=429, headers=header)

    async def scenario() -> ApiError:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", busy)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        [(host, port)] = [it[:2] for it in runner.addresses]
        cluster = {"name": "x", "cluster": {"server": f"http://{host}:{port}"}}
        context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
        config = {"clusters": [cluster], "contexts": [context], "users": [{"name": "x", "user": {"token": "t"}}]}
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config | {"apiVersion": "v1", "kind": "Config", "current-context": "x"}))
        objects = await Objects.connect(path)
        try:
            await objects.get(PROFILE, "lab", "p")
        except ApiError as error:
            return error
        finally:
            await objects.close()
            await runner.cleanup()
        raise AssertionError("it was answered")

    error = asyncio.run(scenario())

    assert (error.status, error.reason, error.retry_after) == (429, "TooManyRequests", seconds)
