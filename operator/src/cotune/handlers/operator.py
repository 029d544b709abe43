"""What a leader runs: the work queues, the sweeper, and kopf's watches that feed the queues."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import kopf

from cotune.artifacts.directory import DirectoryStore
from cotune.cluster.cards import Cards
from cotune.cluster.events import Events
from cotune.cluster.kinds import EXPERIMENT, POD, PROFILE, TRIAL, Kind
from cotune.cluster.objects import ConflictError, Object, Objects
from cotune.cluster.prometheus import Prometheus
from cotune.cluster.stacks import Stacks
from cotune.handlers.card_memory import CardMemory
from cotune.handlers.experiment import ExperimentReconciler
from cotune.handlers.gates import Gates
from cotune.handlers.plans import Plans
from cotune.handlers.pod_watches import WATCH_SECONDS, Follower, PodWatches
from cotune.handlers.profile import ProfileReconciler, namespaces_in_work
from cotune.handlers.records import Records
from cotune.handlers.settings import Settings
from cotune.handlers.store_thread import StoreThread
from cotune.handlers.sweeper import Sweeper
from cotune.handlers.trial import TrialReconciler
from cotune.handlers.turns import PATIENCE_SECONDS, Turns, namespaces_of_pass
from cotune.handlers.work_queue import Key, Reconcile, WorkQueue
from cotune.measurement.agent.client import NodeAgents
from cotune.trials.render import LABEL_TRIAL

_logger = logging.getLogger("cotune")

_SOON = timedelta(seconds=0.5)

_Pass = Callable[[Object, datetime], Awaitable[timedelta | None]]
_Follow = Callable[[Key, Object], None]


@dataclass(frozen=True)
class Operator:
    """The queues of a leader."""

    queues: Mapping[Kind, WorkQueue]

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, settings: Settings, before_write: Callable[[], None]) -> AsyncGenerator["Operator"]:
        """Work as long as the context lasts, on whatever is added to the queues.

        Args:
            settings: of the process.
            before_write: called before anything is written anywhere; it does not return when that is too late.
        """
        async with contextlib.AsyncExitStack() as stack:
            objects = await Objects.connect()
            objects.before_write = before_write
            stack.push_async_callback(objects.close)
            store: StoreThread | None = None
            if settings.artifacts is not None:
                store = StoreThread(DirectoryStore(settings.artifacts), before_write=before_write)
                stack.callback(store.close)
            records = Records(objects, Stacks(objects), settings.probe.name, store)
            watches = PodWatches(lambda namespace: objects.changes(POD, namespace, WATCH_SECONDS))
            await stack.enter_async_context(watches.running())
            gates = Gates(Prometheus(settings.prometheus) if settings.prometheus is not None else None)
            stack.push_async_callback(gates.close)
            operator = cls(_queues(objects, settings, records, watches, gates))
            for queue in operator.queues.values():
                await stack.enter_async_context(queue.running())
            if store is not None:
                sweeper = Sweeper(objects, store, settings.retention, records.is_short)
                await stack.enter_async_context(sweeper.running())
            yield operator

    def trouble(self) -> str:
        """What only a restart mends; empty when there is none."""
        found = [f"{kind.plural}: {trouble}" for kind, queue in self.queues.items() if (trouble := queue.trouble())]
        return "; ".join(found)

    async def finish(self, seconds: float) -> bool:
        """Begin no pass any more, and let those in work end; whether they have."""
        return all(await asyncio.gather(*(it.finish(seconds) for it in self.queues.values())))


async def watch(operator: Operator, when_begun: Callable[[], None]) -> None:
    """Add what kopf's watches tell of to the queues, until it is cancelled or a watch fails for good.

    `when_begun` takes the signals back, which kopf makes its own: it would end before the passes in work have.
    """
    existing = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=registry(operator.queues),
        settings=watching(),
        clusterwide=True,
        standalone=True,
        # Unused without peering, and what kopf would make up needs a user of the system: the image has none.
        identity=cast("Any", "cotune"),
    )
    when_begun()
    await kopf.run_tasks(tasks, ignored=existing)


def registry(queues: Mapping[Kind, WorkQueue]) -> kopf.OperatorRegistry:
    """The watches, and how they log in."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        """As the pod's service account, or outside of a cluster as `KUBECONFIG` says."""
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    for kind in (EXPERIMENT, TRIAL, PROFILE):
        group, version = kind.api_version.split("/")

        @kopf.on.event(group, version, kind.plural, id=kind.plural, param=kind, registry=made)
        async def enqueue(body: kopf.Body, param: Any = None, **_: Any) -> None:
            """Look at what has changed, and at the experiment that a trial belongs to."""
            metadata = body["metadata"]
            queues[param].add(Key(metadata["namespace"], metadata["name"]))
            if param is TRIAL:
                queues[EXPERIMENT].add(Key(metadata["namespace"], body["spec"]["experiment"]))

    return made


def watching() -> kopf.OperatorSettings:
    """kopf only watches: no Events, no annotations, no finalizers, no peering, no look at other kinds."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.persistence.finalizer = "cotune.dev/kopf"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="kopf.cotune.dev")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="kopf.cotune.dev")
    # A watch that went silent is noticed: by the server's end of it, and by the client's.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    return settings


def _queues(
    objects: Objects, settings: Settings, records: Records, watches: PodWatches, gates: Gates
) -> dict[Kind, WorkQueue]:
    events = Events(objects, reporter="cotune")
    # Who waits for a card looks again when one is free.
    cards = Cards(objects, settings.namespace, released=lambda: queues[TRIAL].hurry())
    turns = Turns()
    experiment = ExperimentReconciler(objects, events, Plans(objects), settings.drain + settings.start, turns)
    trial = TrialReconciler(objects, cards, records.stacks, events, settings, records, turns)
    memory = CardMemory(NodeAgents(settings.node_agent) if settings.node_agent is not None else None)
    profile = ProfileReconciler(objects, events, gates, settings.probe, memory)

    def follow_trial(key: Key, _: Object) -> None:
        watches.follow(key.namespace, Follower(key, queues[TRIAL].add, (LABEL_TRIAL, key.name)))

    def follow_profile(key: Key, body: Object) -> None:
        for namespace in namespaces_in_work(body):
            watches.follow(namespace, Follower(key, queues[PROFILE].add))

    queues = {
        EXPERIMENT: WorkQueue("experiment", _fresh(objects, EXPERIMENT, experiment.reconcile), 4),
        TRIAL: WorkQueue("trial", _fresh(objects, TRIAL, trial.reconcile, follow_trial), 4),
        PROFILE: profile_queue(objects, profile, turns, follow_profile),
    }
    return queues


def profile_queue(
    objects: Objects, reconciler: ProfileReconciler, turns: Turns, follow: _Follow | None = None
) -> WorkQueue:
    """Looks at profiles, one at a time in each namespace: who goes first there is read and written in one pass."""

    async def in_turn(body: Object, now: datetime) -> timedelta | None:
        async with turns.of(namespaces_of_pass(body), PATIENCE_SECONDS) as is_mine:
            return await reconciler.reconcile(body, now) if is_mine else _SOON

    return WorkQueue("profile", _fresh(objects, PROFILE, in_turn, follow), 8)


def _fresh(objects: Objects, kind: Kind, reconcile: _Pass, follow: _Follow | None = None) -> Reconcile:
    """Every pass reads its resource anew: what a watch has said may be old.

    One that is to be looked at again follows its pods meanwhile.
    """

    async def one(key: Key) -> timedelta | None:
        body = await objects.find(kind, key.namespace, key.name)
        try:
            again = None if body is None else await reconcile(body, datetime.now(UTC))
        except ConflictError as error:
            _logger.debug("%s: read again: %s", key, error)
            return _SOON
        if follow is not None and body is not None and again is not None:
            follow(key, body)
        return again

    return one
