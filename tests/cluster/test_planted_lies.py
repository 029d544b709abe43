"""Figures that are not true, and runs that are cut off, on a real kubelet: nothing of them ever scores.

One cluster with SIMULATED cards and servers for all of it. Several small experiments run side by side, each with
something planted in it; what became of each is looked at afterwards.
"""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from cotune.cluster.cards import ANNOTATION_QUARANTINED_UNTIL
from cotune.cluster.kinds import LEASE, POD
from cotune.cluster.objects import Object, Objects
from cotune.trials.probe_pod import PROBE
from cotune.trials.render import LABEL_TRIAL
from cotune_demo.cluster import Commands, start
from cotune_demo.preparation import (
    OPERATOR,
    apply_cards,
    apply_corpus,
    dedicate,
    define_resources,
    install_operator,
    make_namespace,
    wait_for_cards,
)
from cotune_demo.progress import Progress
from cotune_demo.scenes import SIMULATED
from localcluster.binaries import CONTAINERD, ensure_built
from localcluster.locations import Cache, Instance
from localcluster.topology import NODE_NAMES
from support.leftovers import passing_instance
from support.node_faults import NodeFaults, held_up, hold, kill
from support.small_stacks import container, experiment, language_model, neighbour, speech_to_text
from support.watched_experiment import FINISHED, Intervene, WatchedExperiment

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

LIES = "lies"
PATIENCE_SECONDS = 600
AT_ONCE = len(NODE_NAMES)
HOT = 0x40
"""NVML's bit of a card that is slowed by its heat."""
OPERATORS_NODE = "production"
INSTALL = (
    *("--set", f"labNamespaces={{{LIES}}}", "--set", "trials.drainSeconds=45"),
    # All nodes run trials, one of them the operator too.
    *("--set", rf"nodeSelector.cotune\.dev/local-node={OPERATORS_NODE}"),
    *("--set-json", 'tolerations=[{"key": "cotune.dev/dedicated", "operator": "Exists"}]'),
)


@dataclass
class Scene:
    """The cluster, and what has run there."""

    commands: Commands
    faults: NodeFaults
    objects: Objects
    watched: dict[str, WatchedExperiment] = field(default_factory=dict[str, WatchedExperiment])
    undrained: Object = field(default_factory=Object)
    """The Lease of the card that was not drained."""
    lost_while_others_ran: list[str] = field(default_factory=list[str])
    """The node that was lost and, once the trial ran again, the node of that."""
    left: list[str] = field(default_factory=list[str])
    """Pods of trials that are there in the end."""
    holders: dict[str, str] = field(default_factory=dict[str, str])

    async def run(self, name: str, spec: Object, plant: Intervene | None = None, times: int = 100) -> None:
        """One experiment, to its end."""
        watched = self.watched[name] = WatchedExperiment(self.objects, LIES, name)
        await watched.run(spec, PATIENCE_SECONDS, plant, times)

    async def window(self, watched: WatchedExperiment, trial: str) -> None:
        """Until the probe has said that it measures."""
        probe = await watched.running(trial, PROBE)
        while "measuring for " not in self.faults.said(probe, PROBE):
            watched.goes_on(trial)
            await asyncio.sleep(0.05)

    async def process(self, watched: WatchedExperiment, trial: str, component: str, container: str) -> int:
        """The process of a container, known before the window begins."""
        pod = await watched.running(trial, component)
        return await asyncio.to_thread(self.faults.process_of, pod, container)

    # --- What is planted; each waits for its moment in the life of one trial.

    async def another_tenant(self, watched: WatchedExperiment, trial: str) -> None:
        async with self.faults.card(watched.node(trial)) as card:
            await self.window(watched, trial)
            # Who is there at the first reading already, is not told from a component.
            await asyncio.sleep(1.5)
            await hold(card, 512, 2)

    async def heat(self, watched: WatchedExperiment, trial: str) -> None:
        async with self.faults.card(watched.node(trial)) as card:
            await self.window(watched, trial)
            try:
                await card.throttle(HOT)
                await asyncio.sleep(1.5)
            finally:
                await card.throttle(0)

    async def no_processor(self, watched: WatchedExperiment, trial: str) -> None:
        process = await self.process(watched, trial, PROBE, PROBE)
        await self.window(watched, trial)
        await held_up(process, 1.5)

    async def kill_in_the_window(self, component: str, of: str, watched: WatchedExperiment, trial: str) -> None:
        process = await self.process(watched, trial, component, of)
        await self.window(watched, trial)
        kill(process)

    async def end_the_operator(self, watched: WatchedExperiment, trial: str) -> None:
        await self.window(watched, trial)
        await self.commands.do(
            *("delete", "pod", "--namespace", OPERATOR, "-l", "app.kubernetes.io/name=cotune"),
            *("--grace-period=0", "--force", "--wait=false"),
        )

    async def fill_the_disk(self, watched: WatchedExperiment, trial: str) -> None:
        await self.window(watched, trial)
        with self.faults.full_disk(watched.node(trial)):
            await watched.until(lambda: watched.phase(trial) in FINISHED)

    async def lose_the_node(self, watched: WatchedExperiment, trial: str) -> None:
        await self.window(watched, trial)
        node = watched.node(trial)
        with self.faults.lost(node):
            await watched.until(lambda: len(watched.trials) > 1 and watched.node([*watched.trials][1]) != "")
            self.lost_while_others_ran = [node, watched.node([*watched.trials][1])]

    async def leave_it_undrained(self, watched: WatchedExperiment, trial: str) -> None:
        """Somebody holds the card until another node has run the trial; then the quarantine is lifted by hand."""
        node = watched.node(trial)
        await watched.until(lambda: len(watched.trials) > 1 and watched.node([*watched.trials][1]) != "")
        self.undrained = await self.objects.get(LEASE, OPERATOR, f"card-{node}")

    async def all_of_it(self) -> None:
        """Everything that runs; what needs a certain node comes first, while the cards are still free."""
        async with AsyncExitStack() as holding, asyncio.TaskGroup() as tasks:
            tasks.create_task(self.run("node-lost", experiment(neighbour(), 8), self.lose_the_node, times=1))
            lost = await self._first_node("node-lost")
            free = next(it for it in sorted(NODE_NAMES) if it != lost)
            assert lost != OPERATORS_NODE
            card = await holding.enter_async_context(self.faults.card(free))
            holder = tasks.create_task(hold(card, 700, PATIENCE_SECONDS))
            undrained = tasks.create_task(
                self.run("undrained", experiment(neighbour(), 2), self.leave_it_undrained, times=1)
            )
            assert await self._first_node("undrained") == free
            tasks.create_task(self._rest())
            await self._quarantined(undrained)
            holder.cancel()
            await card.close()
            lift = f"{ANNOTATION_QUARANTINED_UNTIL}-"
            await self.commands.do("annotate", "lease", f"card-{free}", "--namespace", OPERATOR, lift)
        await self._look_round()

    async def _rest(self) -> None:
        """As many at a time as there are cards; the operator is killed while nobody else needs it."""
        permits = asyncio.Semaphore(AT_ONCE)

        async def one(run: Coroutine[Any, Any, None]) -> None:
            async with permits:
                await run

        small = partial(experiment, neighbour())
        await self.run("operator-killed", small(6), self.end_the_operator, times=1)
        sidecar = container("sidecar", "sleep", "3600", restartPolicy="Always")
        with_sidecar = neighbour()
        with_sidecar["template"]["spec"]["initContainers"] = [sidecar]
        end = self.kill_in_the_window
        runs = [
            self.run("disk-full", small(8, streams=8), self.fill_the_disk, times=1),
            self.run("answers", experiment(language_model(), 3, ("error-body", "truncated"))),
            self.run("starved", small(6, arrivals={"type": "Constant", "ratePerSecond": "15"}), self.no_processor),
            self.run("transcripts", experiment(speech_to_text(), 3, ("wrong-transcript",))),
            self.run("tenant", small(7), self.another_tenant, times=1),
            self.run("throttled", small(5), self.heat, times=1),
            self.run("restarted", experiment(with_sidecar, 8), partial(end, "web", "sidecar"), times=1),
            self.run("fallback", experiment(speech_to_text(COTUNE_SIMULATION_DEVICE_FALLBACK="always"), 2)),
            self.run("server-killed", small(12), partial(end, "web", "server"), times=1),
            self.run("probe-killed", small(4), partial(end, PROBE, PROBE), times=1),
        ]
        async with asyncio.TaskGroup() as tasks:
            for run in runs:
                tasks.create_task(one(run))

    async def _first_node(self, name: str) -> str:
        """Where an experiment's first trial runs."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                watched = self.watched.get(name)
                if watched is not None and (found := [it for it in watched.trials if watched.node(it)]):
                    return watched.node(found[0])
                await asyncio.sleep(0.1)

    async def _quarantined(self, run: "asyncio.Task[None]") -> None:
        while not self.undrained and not run.done():
            await asyncio.sleep(0.1)

    async def _look_round(self) -> None:
        """What is left, once what is still on its way has come to rest."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                leases = await self.objects.list(LEASE, OPERATOR)
                holders = {it["metadata"]["name"]: it["spec"].get("holderIdentity") or "" for it in leases}
                self.holders = {name: holder for name, holder in holders.items() if name.startswith("card-")}
                pods = [it["metadata"] for it in await self.objects.list(POD, LIES)]
                self.left = [it["name"] for it in pods if LABEL_TRIAL in it.get("labels", {})]
                if not self.left and not any(self.holders.values()):
                    return
                await asyncio.sleep(0.25)


async def prepared(commands: Commands, faults: NodeFaults) -> None:
    """Three nodes for trials, each with a card and a small disk for logs; the operator on one of them."""
    for node in NODE_NAMES:
        faults.give_logs_a_small_disk(node, 8)
    await apply_cards(commands)
    await dedicate(commands, *NODE_NAMES)
    await define_resources(commands)
    await make_namespace(commands, LIES)
    await apply_corpus(commands, LIES, SIMULATED.corpus)
    await install_operator(commands, *INSTALL)
    await wait_for_cards(commands, Progress())
    await commands.do("rollout", "status", "deployment/cotune", "--namespace", OPERATOR, "--timeout=180s")


async def played(commands: Commands, faults: NodeFaults) -> Scene:
    await prepared(commands, faults)
    objects = await Objects.connect(commands.kubeconfig)
    scene = Scene(commands, faults, objects)
    try:
        await scene.all_of_it()
    except BaseException:
        for watched in scene.watched.values():
            print(watched.name, watched.told(), sep="\n")
        print(await commands.do("logs", "--namespace", OPERATOR, "deployment/cotune", "--tail=50"))
        raise
    finally:
        await objects.close()
    return scene


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with passing_instance("lies") as made:
        yield made


@pytest.fixture(scope="module")
def scene(instance: Instance) -> Scene:
    commands = start(list(SIMULATED.images), instance.name)
    ctr = ensure_built(CONTAINERD, Cache.from_environment()) / "ctr"
    return asyncio.run(played(commands, NodeFaults(instance, ctr)))


STANDING = {
    "fallback": ("DeviceFallback", "stt has no share of the card"),
    "starved": ("ProbeStarved", "requests to web were sent up to "),
}


@pytest.mark.parametrize(("name", "reason", "words"), [(name, *expected) for name, expected in STANDING.items()])
def test_a_lie_in_every_run_makes_all_of_them_invalid_and_ends_after_three(
    scene: Scene, name: str, reason: str, words: str
) -> None:
    watched = scene.watched[name]
    messages = [it["status"]["message"] for it in watched.trials.values()]

    assert watched.ends() == [("Invalid", reason)] * 3, watched.told()
    assert [it[: len(words)] for it in messages] == [words] * 3
    assert nothing_of(watched, *watched.trials)
    assert (watched.body["status"]["phase"], reason_of(watched.body, "Stalled")) == ("Failed", "BaselineFailed")
    assert "winner" not in watched.body["status"]


ONCE = {
    "tenant": ("SecondTenant", f"came to the card within the window: process {os.getpid()} with 512 MiB"),
    "throttled": ("Throttled", "HwThermalSlowdown in "),
    "restarted": ("ComponentRestarted", "web: a container started or ended within the window"),
    "server-killed": ("ComponentEndedUnknown", "web: "),
    "probe-killed": ("ProbeEnded", ""),
    "disk-full": ("NoResult", "the probe's last line is no result: "),
    "node-lost": ("NodeLost", "the kubelet of "),
    "undrained": ("NotDrained", "the card was not drained within 45 s: waiting for the card: "),
}


@pytest.mark.parametrize(("name", "reason", "words"), [(name, *expected) for name, expected in ONCE.items()])
def test_a_run_that_is_spoilt_scores_nothing_and_the_next_one_is_measured_in_its_place(
    scene: Scene, name: str, reason: str, words: str
) -> None:
    watched = scene.watched[name]

    assert watched.ends() == [("Invalid", reason), ("Succeeded", "")], watched.told()
    first, second = watched.trials
    assert watched.trials[first]["status"]["message"][: len(words)] == words
    assert nothing_of(watched, first)
    assert committed_once(watched, second)
    assert watched.body["status"]["phase"] == "Succeeded"


@pytest.mark.parametrize(
    ("name", "fault", "metric", "bound"),
    [
        ("answers", "error-body", "judge.errorRate", 0.0),
        ("answers", "truncated", "judge.errorRate", 0.0),
        ("transcripts", "wrong-transcript", "stt.wer", 0.15),
    ],
)
def test_answers_that_are_none_break_a_constraint_however_fast_they_are(
    scene: Scene, name: str, fault: str, metric: str, bound: float
) -> None:
    watched = scene.watched[name]
    by_fault = {it["spec"]["candidate"][0]["value"]: it for it in watched.trials.values()}
    honest, lying = by_fault["none"], by_fault[fault]

    assert all(phase == "Succeeded" for phase, _ in watched.ends()), watched.told()
    assert watched.metric(honest, metric) <= bound
    assert watched.metric(lying, metric) > 0.3, "every other answer is a lie"
    assert reason_of(lying, "Feasible") == "ConstraintViolated"
    assert f"{metric} " in message_of(lying, "Feasible")
    assert "fitness" not in lying["status"]
    assert (watched.body["status"]["phase"], reason_of(watched.body, "Better")) == ("Succeeded", "NotBetter")
    assert "winner" not in watched.body["status"]


def test_a_card_that_is_not_drained_is_in_quarantine_and_the_trial_runs_elsewhere(scene: Scene) -> None:
    watched = scene.watched["undrained"]
    first, second = map(watched.node, watched.trials)

    assert scene.undrained["metadata"]["annotations"][ANNOTATION_QUARANTINED_UNTIL]
    assert scene.undrained["metadata"]["name"] == f"card-{first}"
    assert first != second


def test_while_a_node_is_lost_its_trial_runs_on_another_and_it_comes_back_to_a_free_card(scene: Scene) -> None:
    lost, other = scene.lost_while_others_ran

    assert lost != other
    assert f"card-{lost}" in scene.holders
    assert set(scene.holders.values()) == {""}
    assert scene.left == []


def test_a_window_outlives_the_operator_and_its_result_is_committed_once(scene: Scene) -> None:
    watched = scene.watched["operator-killed"]
    [trial] = watched.trials

    assert watched.ends() == [("Succeeded", "")], watched.told()
    assert committed_once(watched, trial)


def nothing_of(watched: WatchedExperiment, *trials: str) -> bool:
    """Whether nothing that these trials measured was ever stored, and nothing of them counts."""
    return all(
        watched.results[it] == ["[]"]
        and "fitness" not in watched.trials[it]["status"]
        and len(watched.probes[it]) == 1
        and not any(condition["type"] == "Feasible" for condition in watched.trials[it]["status"]["conditions"])
        for it in trials
    )


def committed_once(watched: WatchedExperiment, trial: str) -> bool:
    """Whether the trial ran once, and what it stored in the end was never anything else."""
    return (
        len(watched.probes[trial]) == 1
        and watched.phases[trial][-1] == "Succeeded"
        and watched.phases[trial].count("Measuring") <= 1
        and len([it for it in watched.results[trial] if it != "[]"]) == 1
        and "fitness" in watched.trials[trial]["status"]
    )


def reason_of(body: Object, kind: str) -> str:
    return next((it["reason"] for it in body["status"]["conditions"] if it["type"] == kind), "")


def message_of(body: Object, kind: str) -> str:
    return next((it["message"] for it in body["status"]["conditions"] if it["type"] == kind), "")
