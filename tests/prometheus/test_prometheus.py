"""Samples of a real Prometheus, and of addresses behind which there is none."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from cotune.cluster.prometheus import Prometheus, PrometheusError
from support.prometheus import RunningPrometheus, running_prometheus

pytestmark = pytest.mark.prometheus

SECOND = timedelta(seconds=1)

Answer = Callable[[web.BaseRequest], Awaitable[web.Response]]


@pytest.fixture(scope="module")
def running() -> Iterator[RunningPrometheus]:
    with running_prometheus() as prometheus:
        prometheus.figure.labels("one").set(0.25)
        prometheus.figure.labels("two").set(float("nan"))
        prometheus.figure.labels("three").set(float("inf"))
        prometheus.has_seen("one", seconds=4)
        yield prometheus


def asked(url: str, query: str, seconds: float = 3, timeout_seconds: float = 10) -> list[float]:
    now = datetime.now(UTC)
    prometheus = Prometheus(url, timeout_seconds)
    return list(asyncio.run(prometheus.samples(query, now - timedelta(seconds=seconds), now, SECOND)))


def test_there_is_a_sample_for_every_step(running: RunningPrometheus) -> None:
    assert asked(running.url, 'figure{part="one"}') == [0.25] * 4
    assert asked(running.url + "/", "vector(3)", seconds=0.5) == [3.0]
    assert asked(running.url, "scalar(vector(2)) * 2") == [4.0] * 4


def test_what_is_no_number_and_what_is_infinite_is_told_apart(running: RunningPrometheus) -> None:
    assert [str(it) for it in asked(running.url, 'figure{part="two"}')] == ["nan"] * 4
    assert asked(running.url, 'figure{part="three"}') == [float("inf")] * 4


def test_a_query_that_matches_nothing_has_no_samples(running: RunningPrometheus) -> None:
    assert asked(running.url, "nobody_says_this") == []


def test_where_a_series_has_no_value_there_is_no_sample(running: RunningPrometheus) -> None:
    found = asked(running.url, 'figure{part="one"}', seconds=10_000)

    assert 4 <= len(found) < 1000


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("figure", "the query gives 3 series, not one"),
        ("figure{", "bad_data: .*parse error"),
        ("figure{part='one'}[1m]", "bad_data: "),
    ],
)
def test_a_query_that_is_no_single_series_is_an_error(running: RunningPrometheus, query: str, message: str) -> None:
    with pytest.raises(PrometheusError, match=message):
        asked(running.url, query)


def test_more_points_than_prometheus_gives_are_an_error(running: RunningPrometheus) -> None:
    with pytest.raises(PrometheusError, match="bad_data: exceeded maximum resolution"):
        asked(running.url, "vector(1)", seconds=20_000)


async def never(_: web.BaseRequest) -> web.Response:
    await asyncio.sleep(2)
    raise AssertionError("nobody waits for this")


async def elsewhere(_: web.BaseRequest) -> web.Response:
    raise web.HTTPTemporaryRedirect("/elsewhere")


async def a_page(_: web.BaseRequest) -> web.Response:
    return web.Response(text="<html>Sign in</html>", status=401)


async def a_list(_: web.BaseRequest) -> web.Response:
    return web.json_response([1])


async def too_much(_: web.BaseRequest) -> web.Response:
    return web.Response(text=" " * (2 << 20))


@asynccontextmanager
async def answering(answer: Answer) -> AsyncGenerator[tuple[str, list[str]]]:
    """A server that is no Prometheus, and the paths that it was asked for."""
    paths: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        paths.append(request.path)
        return await answer(request)

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", paths
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (never, "no answer within 0.5 s"),
        (elsewhere, "HTTP status 307, and no answer of a Prometheus"),
        (a_page, "HTTP status 401, and no answer of a Prometheus"),
        (a_list, "HTTP status 200, and no answer of a Prometheus"),
        (too_much, "the answer is too large"),
    ],
)
def test_what_is_no_answer_of_a_prometheus_is_an_error(answer: Answer, message: str) -> None:
    async def scenario() -> None:
        async with answering(answer) as (url, paths):
            now = datetime.now(UTC)
            with pytest.raises(PrometheusError, match=message):
                await Prometheus(url, 0.5).samples("up", now - SECOND, now, SECOND)
            assert paths == ["/api/v1/query_range"], "it is asked there, once, and nowhere else"

    asyncio.run(scenario())


def test_nobody_there_is_an_error() -> None:
    with pytest.raises(PrometheusError, match=r"no answer: .*Cannot connect"):
        asked("http://127.0.0.1:1", "up")
