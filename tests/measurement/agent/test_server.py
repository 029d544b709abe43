"""The agent as a process of its own, over a SIMULATED card with real processes on it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cotune.measurement.agent.client import NodeAgent, NodeAgents, UnknownError, find_agent
from cotune.measurement.agent.contract import LONGEST_WINDOW_SECONDS, MOST_PODS_ASKED, NodeHoldings, NodeReport
from cotune_simulation.card.identity import card_uuid
from support.running_agent import running_agent
from support.simulated_card import RunningCard, build_nvml_library, start
from support.simulated_server import free_port

HOLD = """
import asyncio, sys
from cotune_simulation.card import socket_path
from cotune_simulation.card.client import CardClient
async def main():
    client = await CardClient.connect(socket_path())
    await client.allocate(int(sys.argv[1]) * 1024 * 1024)
    print("held", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
CARD = card_uuid("lab")
UID, ID = "0b5cbb7e-6f4e-4d2e-9a3b-1c2d3e4f5a6b", "a" * 64


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_nvml_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def card(tmp_path: Path) -> Iterator[RunningCard]:
    running = start(tmp_path / "card.sock", "NVIDIA-H200")
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def holding(card: RunningCard, mib: int) -> Generator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(mib)], stdout=subprocess.PIPE, env=os.environ | card.environment()
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def asked(scenario: Callable[[aiohttp.ClientSession], Awaitable[None]]) -> None:
    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            await scenario(session)

    asyncio.run(run())


def test_a_window_tells_whose_the_processes_were_and_what_has_failed(
    card: RunningCard, library: Path, tmp_path: Path
) -> None:
    group = tmp_path / "cgroup" / "kubepods" / f"pod{UID}" / ID
    group.mkdir(parents=True)
    (group / "memory.events").write_text("oom_kill 2\noom_group_kill 0\n")

    with (
        running_agent(card, library, tmp_path / "cgroup") as (api, metrics),
        holding(card, 512) as one,
        holding(card, 64) as two,
    ):

        async def scenario(session: aiohttp.ClientSession) -> None:
            found = await find_agent(session, f"127.0.0.1:{api}", "lab", CARD)
            watching = asyncio.create_task(found.window(1.5))
            await asyncio.sleep(0.5)
            async with card.client() as client:
                await client.fail(xid=48, uncorrected=1)
            report = await watching
            async with session.get(f"http://127.0.0.1:{metrics}/metrics") as response:
                exposition = await response.text()

            assert (report.node, report.card, report.lost) == ("lab", CARD, ())
            assert report.readings > 5
            [tenant] = report.tenants
            assert {it.pid for it in tenant.processes} == {one.pid, two.pid}
            assert all(it.name.startswith("python") for it in tenant.processes)
            assert tenant.least_mib == tenant.most_mib == 576
            assert len(tenant.memory_mib) == report.readings
            assert report.xids == (48,)
            assert report.kills is not None
            assert [(it.container, it.pod, it.kills) for it in report.kills] == [(ID, UID, 2)]
            for line in (
                f'cotune_gpu_xids_total{{uuid="{CARD}",xid="48"}} 1.0',
                f'cotune_gpu_uncorrected_ecc_errors_total{{uuid="{CARD}"}} 1.0',
                f'cotune_gpu_needs_reset{{uuid="{CARD}"}} 1.0',
                f'cotune_container_oom_kills_total{{container_id="{ID}",pod_uid="{UID}"}} 2.0',
            ):
                assert line in exposition
            assert any(
                float(line.rpartition(" ")[2]) == 576 * 1024 * 1024
                for line in exposition.splitlines()
                if line.startswith("cotune_gpu_memory_bytes{")
            )

        asked(scenario)


def test_an_error_from_before_the_window_is_not_in_it(card: RunningCard, library: Path, tmp_path: Path) -> None:
    with running_agent(card, library, tmp_path) as (api, metrics):

        async def scenario(session: aiohttp.ClientSession) -> None:
            async with card.client() as client:
                await client.fail(xid=94)
            async with asyncio.timeout(10):
                while True:
                    async with session.get(f"http://127.0.0.1:{metrics}/metrics") as response:
                        if 'xid="94"' in await response.text():
                            break
            found = await find_agent(session, f"127.0.0.1:{api}", "lab", CARD)
            report = await found.window(0.3)

            assert (report.xids, report.tenants, report.kills) == ((), (), None)

        asked(scenario)


@pytest.mark.parametrize(
    ("node", "uuid", "why"),
    [
        ("staging", CARD, "no node agent of staging answers, of 1 there"),
        ("lab", "GPU-another", "the node agent of lab does not see GPU-another"),
    ],
)
def test_the_agent_of_another_node_or_card_is_not_asked(
    card: RunningCard, library: Path, tmp_path: Path, node: str, uuid: str, why: str
) -> None:
    with running_agent(card, library, tmp_path) as (api, _):

        async def scenario(session: aiohttp.ClientSession) -> None:
            with pytest.raises(UnknownError, match=why):
                await find_agent(session, f"127.0.0.1:{api}", node, uuid)

        asked(scenario)


def test_where_nobody_listens_it_is_not_known() -> None:
    async def scenario(session: aiohttp.ClientSession) -> None:
        for address in (f"127.0.0.1:{free_port()}", "cotune-node-agent.invalid:9401"):
            with pytest.raises(UnknownError):
                await find_agent(session, address, "lab", CARD)

    asked(scenario)


REFUSED = {
    f"card={CARD}&seconds=0": 400,
    f"card={CARD}&seconds=soon": 400,
    f"card={CARD}&seconds=nan": 400,
    f"card={CARD}&seconds={LONGEST_WINDOW_SECONDS + 1}": 400,
    f"card={CARD}": 400,
    "card=GPU-another&seconds=1": 404,
}


def test_a_question_that_makes_no_sense_is_refused(card: RunningCard, library: Path, tmp_path: Path) -> None:
    with running_agent(card, library, tmp_path) as (api, _):

        async def scenario(session: aiohttp.ClientSession) -> None:
            answers: dict[str, int] = {}
            for query in REFUSED:
                async with session.get(f"http://127.0.0.1:{api}/v1/window?{query}") as response:
                    answers[query] = response.status
            assert answers == REFUSED

        asked(scenario)


def test_a_card_that_is_lost_within_the_window_is_no_report(card: RunningCard, library: Path, tmp_path: Path) -> None:
    with running_agent(card, library, tmp_path) as (api, _):

        async def scenario(session: aiohttp.ClientSession) -> None:
            found = await find_agent(session, f"127.0.0.1:{api}", "lab", CARD)
            watching = asyncio.create_task(found.window(5))
            await asyncio.sleep(0.5)
            card.stop()
            with pytest.raises(UnknownError, match="the node agent: 200: error: NVML: "):
                await watching

        asked(scenario)


def test_what_is_no_report_is_not_taken_for_one() -> None:
    async def scenario(session: aiohttp.ClientSession) -> None:
        application = web.Application()
        application.router.add_get("/v1/window", a_page)
        runner = web.AppRunner(application)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            with pytest.raises(UnknownError, match="the node agent: 200: <html>"):
                await NodeAgent(session, f"http://127.0.0.1:{port}", CARD).window(0.1)
        finally:
            await runner.cleanup()

    asked(scenario)


async def a_page(_: web.Request) -> web.Response:
    return web.Response(text="<html>")


def test_the_report_that_travels_is_the_report_that_was_made() -> None:
    report = NodeReport(node="lab", card=CARD, readings=3, xids=(48,), lost=(4711,))

    assert NodeReport.model_validate_json(report.model_dump_json(by_alias=True)) == report


def test_the_operator_is_told_what_pods_hold_and_that_others_hold_nothing(
    card: RunningCard, library: Path, tmp_path: Path
) -> None:
    """Whose a process is, is shown with real pods in tests/cluster; here it runs in none."""
    with running_agent(card, library, tmp_path) as (api, _), holding(card, 512):

        async def scenario(_: aiohttp.ClientSession) -> None:
            found = await NodeAgents(f"127.0.0.1:{api}").held("lab", {UID})

            assert found == NodeHoldings(node="lab", cards=(CARD,))

        asked(scenario)


def test_only_a_question_about_some_pods_is_answered(card: RunningCard, library: Path, tmp_path: Path) -> None:
    many = "&".join(f"pod=u-{it}" for it in range(MOST_PODS_ASKED + 1))
    with running_agent(card, library, tmp_path) as (api, _):

        async def scenario(session: aiohttp.ClientSession) -> None:
            for query in ("", many):
                async with session.get(f"http://127.0.0.1:{api}/v1/held?{query}") as response:
                    assert response.status == 400
                    assert str(MOST_PODS_ASKED) in await response.text()

        asked(scenario)


def test_the_agent_of_another_node_is_not_believed(card: RunningCard, library: Path, tmp_path: Path) -> None:
    with running_agent(card, library, tmp_path) as (api, _):

        async def scenario(_: aiohttp.ClientSession) -> None:
            agents = NodeAgents(f"127.0.0.1:{api}", {"staging": f"http://127.0.0.1:{api}"})
            # Its address was another one's before: it is looked for once more, and is not there.
            with pytest.raises(UnknownError, match="no node agent of staging answers, of 1 there"):
                await agents.held("staging", {UID})
            assert (await agents.held("lab", {UID})).node == "lab"

        asked(scenario)


def test_an_agent_that_moved_is_found_again(card: RunningCard, library: Path, tmp_path: Path) -> None:
    with running_agent(card, library, tmp_path) as (api, _):

        async def scenario(_: aiohttp.ClientSession) -> None:
            agents = NodeAgents(f"127.0.0.1:{api}", {"lab": f"http://127.0.0.1:{free_port()}"})

            assert (await agents.held("lab", {UID})).cards == (CARD,)

        asked(scenario)


@pytest.mark.parametrize("address", [f"127.0.0.1:{free_port()}", "cotune-node-agent.invalid:9401"])
def test_where_nobody_listens_the_operator_does_not_know(address: str) -> None:
    async def scenario(_: aiohttp.ClientSession) -> None:
        with pytest.raises(UnknownError):
            await NodeAgents(address).held("lab", {UID})

    asked(scenario)
