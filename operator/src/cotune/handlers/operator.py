"""What kopf is told: how to start and stop, and which watches feed which queue."""

import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf
from prometheus_client import start_http_server

from cotune.artifacts.directory import DirectoryStore
from cotune.cluster.cards import Cards
from cotune.cluster.events import Events
from cotune.cluster.kinds import EXPERIMENT, PROFILE, TRIAL, Kind
from cotune.cluster.objects import ConflictError, Object, Objects
from cotune.cluster.prometheus import Prometheus
from cotune.cluster.stacks import Stacks
from cotune.handlers.experiment import ExperimentReconciler
from cotune.handlers.gates import Gates
from cotune.handlers.plans import Plans
from cotune.handlers.profile import ProfileReconciler
from cotune.handlers.records import Records
from cotune.handlers.settings import Settings
from cotune.handlers.store_thread import StoreThread
from cotune.handlers.sweeper import Sweeper
from cotune.handlers.trial import TrialReconciler
from cotune.handlers.work_queue import Key, Reconcile, WorkQueue

_logger = logging.getLogger("cotune")

_SOON = timedelta(seconds=0.5)

_Pass = Callable[[Object, datetime], Awaitable[timedelta | None]]


def register(registry: kopf.OperatorRegistry, settings: Settings) -> None:
    """Register the operator's start, its end and its watches."""
    running = contextlib.AsyncExitStack()
    queues: dict[Kind, WorkQueue] = {}

    @kopf.on.startup(registry=registry)
    async def start(**kwargs: Any) -> None:
        """Connect, start the queues, and keep kopf to its watches."""
        configure(kwargs["settings"])
        objects = await Objects.connect()
        running.push_async_callback(objects.close)
        store = StoreThread(DirectoryStore(settings.artifacts)) if settings.artifacts is not None else None
        records = Records(objects, Stacks(objects), settings.probe.name, store)
        gates = Gates(Prometheus(settings.prometheus) if settings.prometheus is not None else None)
        running.push_async_callback(gates.close)
        queues.update(_queues(objects, settings, records, gates))
        for queue in queues.values():
            await running.enter_async_context(queue.running())
        if store is not None:
            running.callback(store.close)
            sweeper = Sweeper(objects, store, settings.retention, records.is_short)
            await running.enter_async_context(sweeper.running())
        start_http_server(settings.metrics_port)
        _logger.info("started: watching experiments, trials and profiles")

    @kopf.on.probe(registry=registry)
    async def alive(**_: Any) -> None:
        """The answer of the liveness endpoint is an error when a queue no longer works: the kubelet then restarts it.

        Raises:
            kopf.PermanentError: only a restart mends it.
        """
        if found := [f"{kind.plural}: {trouble}" for kind, queue in queues.items() if (trouble := queue.trouble())]:
            raise kopf.PermanentError("; ".join(found))

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        """As the pod's service account, or outside of a cluster as `KUBECONFIG` says."""
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        """End the passes that are in work; the next operator goes on from the cluster's state."""
        await running.aclose()

    for kind in (EXPERIMENT, TRIAL, PROFILE):
        group, version = kind.api_version.split("/")

        @kopf.on.event(group, version, kind.plural, id=kind.plural, param=kind, registry=registry)
        async def enqueue(body: kopf.Body, param: Any = None, **_: Any) -> None:
            """Look at what has changed, and at the experiment that a trial belongs to."""
            metadata = body["metadata"]
            queues[param].add(Key(metadata["namespace"], metadata["name"]))
            if param is TRIAL:
                queues[EXPERIMENT].add(Key(metadata["namespace"], body["spec"]["experiment"]))


def configure(settings: kopf.OperatorSettings) -> None:
    """kopf only watches: no Events, no annotations, no finalizers, no peering, no look at other kinds."""
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


def _queues(objects: Objects, settings: Settings, records: Records, gates: Gates) -> dict[Kind, WorkQueue]:
    events = Events(objects, reporter="cotune")
    cards = Cards(objects, settings.namespace)
    trial = TrialReconciler(objects, cards, records.stacks, events, settings, records)
    return {
        EXPERIMENT: WorkQueue(
            "experiment",
            _fresh(objects, EXPERIMENT, ExperimentReconciler(objects, events, Plans(objects)).reconcile),
            2,
        ),
        TRIAL: WorkQueue("trial", _fresh(objects, TRIAL, trial.reconcile), 4),
        # One at a time: which profile goes first in a namespace is read and written in one pass.
        PROFILE: WorkQueue("profile", _fresh(objects, PROFILE, ProfileReconciler(objects, events, gates).reconcile), 1),
    }


def _fresh(objects: Objects, kind: Kind, reconcile: _Pass) -> Reconcile:
    """Every pass reads its resource anew: what a watch has said may be old."""

    async def one(key: Key) -> timedelta | None:
        body = await objects.find(kind, key.namespace, key.name)
        try:
            return None if body is None else await reconcile(body, datetime.now(UTC))
        except ConflictError as error:
            _logger.debug("%s: read again: %s", key, error)
            return _SOON

    return one
