"""Takes away the records that are kept no longer; beside the queues, for nothing waits for it."""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import ValidationError

from cotune.api.experiment import ExperimentSpec, ExperimentStatus
from cotune.api.profile import ProfileSpec
from cotune.api.trial import TrialSpec, TrialStatus
from cotune.artifacts.record import RecordError, parse_record
from cotune.artifacts.retention import LivingExperiment, Reliance, Retention, StoredRecord, relied_on, superfluous
from cotune.artifacts.store import DamagedError, NotStoredError
from cotune.cluster.kinds import EXPERIMENT, PROFILE, TRIAL
from cotune.cluster.objects import Object, Objects
from cotune.handlers.records import ARTIFACTS
from cotune.handlers.statuses import status_of
from cotune.handlers.store_thread import StoreThread

_EVERY_SECONDS, _AT_MOST_EVERY_SECONDS = 3600.0, 60.0

_logger = logging.getLogger("cotune.artifacts")


@dataclass(frozen=True)
class Sweeper:
    """Looks at all records every hour, and when something could not be stored."""

    objects: Objects
    store: StoreThread
    retention: Retention
    is_short: asyncio.Event
    _known: dict[str, StoredRecord | None] = field(default_factory=dict[str, "StoredRecord | None"])
    """What was read of them: it never changes, for a record is named by what it says. None: it cannot be read."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Sweep as long as the context lasts."""
        task = asyncio.create_task(self._sweep_for_ever(), name="sweeper")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def sweep(self, now: datetime) -> tuple[str, ...]:
        """Take away what is kept no longer; the digests of what went.

        Whatever cannot be read stays: a record that has changed is `cotune verify`'s to tell. Nothing goes when the
        cluster cannot be asked who relies on it.

        Raises:
            ApiError: the cluster cannot be asked.
            StoreError: the store does not answer.
        """
        if self.retention == Retention():
            return ()
        stored = {it.digest for it in await self.store.entries()}
        for digest in self._known.keys() - stored:
            del self._known[digest]
        for digest in stored - self._known.keys():
            self._known[digest] = await self._read(digest)
        records = [it for it in self._known.values() if it is not None]
        going = superfluous(records, await self._relied_on(), self.retention, now)
        for digest in going:
            await self.store.delete(digest)
            del self._known[digest]
            ARTIFACTS.labels("removed").inc()
        return going

    async def _sweep_for_ever(self) -> None:
        while True:
            self.is_short.clear()
            try:
                if going := await self.sweep(datetime.now(UTC)):
                    _logger.info("%d records are kept no longer", len(going))
            except Exception as error:  # It is tried again; that records pile up must not end the operator.
                _logger.warning("records were not swept: %s: %s", type(error).__name__, error)
            await asyncio.sleep(_AT_MOST_EVERY_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.is_short.wait(), _EVERY_SECONDS)

    async def _read(self, digest: str) -> StoredRecord | None:
        try:
            content = await self.store.get(digest)
            return StoredRecord.of(digest, await asyncio.to_thread(parse_record, content))
        except (NotStoredError, DamagedError, RecordError) as error:
            _logger.warning("%s stays, for it cannot be read: %s", digest, error)
            return None

    async def _relied_on(self) -> Reliance:
        profiles = [ProfileSpec.model_validate(it["spec"]) for it in await self.objects.list(PROFILE)]
        experiments = {it["metadata"]["uid"]: it for it in await self.objects.list(EXPERIMENT)}
        trials: defaultdict[str, dict[str, tuple[TrialSpec, TrialStatus]]] = defaultdict(dict)
        for body in await self.objects.list(TRIAL):
            status = TrialStatus.model_validate(status_of(body))
            for it in body["metadata"].get("ownerReferences", ()):
                trials[it["uid"]][body["metadata"]["name"]] = TrialSpec.model_validate(body["spec"]), status
        living = [_living(uid, body, trials[uid]) for uid, body in experiments.items()]
        return relied_on(living, profiles)


def _living(uid: str, experiment: Object, trials: dict[str, tuple[TrialSpec, TrialStatus]]) -> LivingExperiment:
    try:
        spec = ExperimentSpec.model_validate(experiment["spec"])
    except ValidationError:
        spec = None
    return LivingExperiment(uid, spec, ExperimentStatus.model_validate(status_of(experiment)), trials)
