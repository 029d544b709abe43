"""Which records may go: the old ones, and those beyond a number, but never what somebody still relies on."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cotune.api.experiment import ExperimentPhase, ExperimentSpec, ExperimentStatus
from cotune.api.profile import ProfileSpec
from cotune.api.trial import TrialSpec, TrialStatus
from cotune.artifacts.record import TrialRecord
from cotune.search.space import Candidate, Space


@dataclass(frozen=True)
class Retention:
    """How much is kept; None: no limit."""

    days: int | None = None
    """From the creation of the trial."""
    count_per_experiment: int | None = None
    """The newest."""


@dataclass(frozen=True)
class StoredRecord:
    """What retention asks of a record."""

    digest: str
    experiment_uid: str
    created_at: datetime
    parents: tuple[str, ...] = ()
    """Digests of their records."""

    @classmethod
    def of(cls, digest: str, record: TrialRecord) -> "StoredRecord":
        """That of a record that was read."""
        lineage = record.lineage
        parents = tuple(it.record for it in lineage.parents if it.record is not None)
        return cls(digest, lineage.experiment_uid, record.created_at, parents)


@dataclass(frozen=True)
class LivingExperiment:
    """An experiment that is in the cluster, with its trials."""

    uid: str
    spec: ExperimentSpec | None
    """None: it cannot be read, and so all of its records are kept."""
    status: ExperimentStatus
    trials: Mapping[str, tuple[TrialSpec, TrialStatus]]
    """By name."""


@dataclass(frozen=True)
class Reliance:
    """What in the store something in the cluster relies on."""

    digests: frozenset[str] = frozenset()
    experiments: frozenset[str] = frozenset()
    """Uids of experiments that are not over: a record may be there that no status names yet."""


def superfluous(
    records: Sequence[StoredRecord], reliance: Reliance, retention: Retention, now: datetime
) -> tuple[str, ...]:
    """The digests of the records that may go.

    A record that is kept keeps those that it descends from, or its lineage could not be followed.

    Args:
        records: all that are stored.
        reliance: what the cluster relies on.
        retention: the limits; a record that breaks either goes.
        now: the time.
    """
    known = {it.digest: it for it in records}
    oldest = None if retention.days is None else now - timedelta(days=retention.days)
    waiting = [*reliance.digests, *(it.digest for it in records if it.experiment_uid in reliance.experiments)]
    for group in _by_experiment(records):
        newest = sorted(group, key=lambda it: (it.created_at, it.digest), reverse=True)
        waiting += [
            it.digest for it in newest[: retention.count_per_experiment] if oldest is None or it.created_at >= oldest
        ]
    kept: set[str] = set()
    while waiting:
        digest = waiting.pop()
        if digest in known and digest not in kept:
            kept.add(digest)
            waiting += known[digest].parents
    return tuple(sorted(known.keys() - kept))


def relied_on(experiments: Iterable[LivingExperiment], profiles: Iterable[ProfileSpec]) -> Reliance:
    """What the cluster relies on.

    It is what a profile names as its origin, all of an experiment that is not over, and of one that is over every run
    of its baseline and of its winner: the verdict rests on them.
    """
    origins = (it.provenance.artifact for it in profiles if it.provenance is not None)
    digests = {it for it in origins if it is not None}
    running: set[str] = set()
    for experiment in experiments:
        wanted = _candidates(experiment)
        if wanted is None:
            running.add(experiment.uid)
            continue
        digests |= {
            status.artifact.digest
            for spec, status in experiment.trials.values()
            if status.artifact is not None and _candidate(spec) in wanted
        }
    return Reliance(frozenset(digests), frozenset(running))


def _by_experiment(records: Iterable[StoredRecord]) -> Iterable[Sequence[StoredRecord]]:
    groups: defaultdict[str, list[StoredRecord]] = defaultdict(list)
    for it in records:
        groups[it.experiment_uid].append(it)
    return groups.values()


def _candidates(experiment: LivingExperiment) -> set[Candidate] | None:
    """Whose records stay; None: all of them."""
    status = experiment.status
    if experiment.spec is None or status.phase not in {ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED}:
        return None
    wanted = {Space(experiment.spec.parameters).baseline}
    if status.winner is not None and (winner := experiment.trials.get(status.winner.trial)) is not None:
        wanted.add(_candidate(winner[0]))
    return wanted


def _candidate(spec: TrialSpec) -> Candidate:
    return Candidate(tuple((it.name, it.value) for it in spec.candidate))
