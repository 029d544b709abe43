"""What an API server says in its headers, what becomes of it, and what is not even sent."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from cotune.cluster.kinds import PROFILE
from cotune.cluster.objects import ApiError, Objects


@asynccontextmanager
async def answered_by(answer: web.Response, asked: list[str], folder: Path) -> AsyncGenerator[Objects]:
    """A client whose API server has one answer to everything."""

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.method)
        return answer

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    [(host, port)] = [it[:2] for it in runner.addresses]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": f"http://{host}:{port}"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "users": [{"name": "x", "user": {"token": "t"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    objects = await Objects.connect(path)
    try:
        yield objects
    finally:
        await objects.close()
        await runner.cleanup()


@pytest.mark.parametrize(("header", "seconds"), [({"Retry-After": "7"}, 7), ({}, 0), ({"Retry-After": "soon"}, 0)])
def test_how_long_an_api_server_wants_to_be_left_alone_is_known(
    tmp_path: Path, header: dict[str, str], seconds: float
) -> None:
    body = {"kind": "Status", "reason": "TooManyRequests", "message": "later"}

    async def scenario() -> ApiError:
        busy = web.json_response(body, status=429, headers=header)
        async with answered_by(busy, [], tmp_path) as objects:
            with pytest.raises(ApiError) as refusal:
                await objects.get(PROFILE, "lab", "p")
        return refusal.value

    error = asyncio.run(scenario())

    assert (error.status, error.reason, error.retry_after) == (429, "TooManyRequests", seconds)


class TooLateError(Exception):
    pass


def test_what_is_written_too_late_is_not_sent(tmp_path: Path) -> None:
    asked: list[str] = []

    def too_late() -> None:
        raise TooLateError

    async def scenario() -> None:
        async with answered_by(web.json_response({}), asked, tmp_path) as objects:
            objects.before_write = too_late
            for call in (
                objects.create(PROFILE, "lab", {}),
                objects.replace(PROFILE, {"metadata": {"namespace": "lab", "name": "p"}}),
                objects.merge(PROFILE, "lab", "p", {}),
                objects.apply(PROFILE, {"metadata": {"namespace": "lab", "name": "p"}}),
                objects.delete(PROFILE, "lab", "p"),
            ):
                with pytest.raises(TooLateError):
                    await call
            await objects.get(PROFILE, "lab", "p")

    asyncio.run(scenario())

    assert asked == ["GET"]
