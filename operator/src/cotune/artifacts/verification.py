"""Whether a store still says what it said: bytes, figures, lineage, and what the cluster's resources name of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from cotune.api.profile import ProfileSpec
from cotune.api.trial import TrialPhase, TrialSpec, TrialStatus
from cotune.artifacts.figures import Recomputed
from cotune.artifacts.record import RecordError, TrialRecord, parse_record
from cotune.artifacts.store import DamagedError, NotStoredError, Store
from cotune.trials.render import ANNOTATION_DIGEST


class FaultKind(StrEnum):
    """What is wrong."""

    DAMAGED = "Damaged"
    """The bytes of a record are not those that it is named by."""
    UNREADABLE = "Unreadable"
    """The bytes are as they were stored, and are no record that this version can read."""
    WRONG_FIGURE = "WrongFigure"
    """A figure does not follow from the raw values beside it."""
    PARENT_MISSING = "ParentMissing"
    """A record descends from one that is not in the store."""
    MISSING = "Missing"
    """A resource names a record that is not in the store."""
    NO_RECORD = "NoRecord"
    """A trial that was run names no record."""
    DIFFERS = "Differs"
    """A resource says something else than its record."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    kind: FaultKind
    subject: str
    """A digest, or kind, namespace and name of a resource."""
    message: str


@dataclass(frozen=True)
class VerifiedRecord:
    """A record whose bytes are right."""

    digest: str
    trial: str
    """Namespace and name."""
    phase: TrialPhase
    recomputed: int
    """Measurements that have been computed again from raw values."""
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Verification:
    """All that was looked at."""

    records: tuple[VerifiedRecord, ...] = ()
    resources: int = 0
    """Trials and profiles that were compared with their records."""
    removed: int = 0
    """Records that resources name and that are allowed to be gone."""
    faults: tuple[Fault, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


@dataclass
class _Store:
    """The records of a store, each read once: thousands of histograms need not be held at the same time."""

    records: dict[str, TrialRecord] = field(default_factory=dict[str, TrialRecord])
    """Without their raw values and logs."""
    figures: dict[str, Recomputed] = field(default_factory=dict[str, Recomputed])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    """Of all that is there, be it readable or not."""
    faults: list[Fault] = field(default_factory=list[Fault])


def verify(store: Store, resources: Sequence[Mapping[str, Any]] = (), allow_removed: bool = False) -> Verification:
    """Look at every record of a store, and at the trials and profiles that name them.

    Args:
        store: where the records are.
        resources: GpuTrials and GpuProfiles as the API server has them; other kinds are passed over.
        allow_removed: whether a record that a resource names may be gone, as after its time.

    Raises:
        StoreError: the store cannot be read at all.
    """
    found = _read(store)
    records = [_record(found, digest, it) for digest, it in sorted(found.records.items())]
    compared = [it for it in resources if it.get("kind") in {"GpuTrial", "GpuProfile"}]
    said = [fault for it in compared for fault in _resource(found, it)]
    gone = [it for it in said if it.kind is FaultKind.MISSING] if allow_removed else []
    return Verification(
        records=tuple(records),
        resources=len(compared),
        removed=len(gone),
        faults=(
            *found.faults,
            *(fault for it in records for fault in it.faults),
            *(it for it in said if it not in gone),
        ),
    )


def _read(store: Store) -> _Store:
    found = _Store()
    for entry in store.list():
        found.sizes[entry.digest] = entry.size
        try:
            record = parse_record(store.get(entry.digest))
        except (DamagedError, NotStoredError) as error:
            found.faults.append(Fault(FaultKind.DAMAGED, entry.digest, str(error)))
        except RecordError as error:
            found.faults.append(Fault(FaultKind.UNREADABLE, entry.digest, str(error)))
        else:
            found.figures[entry.digest] = Recomputed(record)
            found.records[entry.digest] = record.model_copy(update={"result": None, "logs": ()})
    return found


def _record(store: _Store, digest: str, record: TrialRecord) -> VerifiedRecord:
    figures = store.figures[digest]
    faults = [Fault(FaultKind.WRONG_FIGURE, digest, it) for it in figures.faults]
    for parent in record.lineage.parents:
        if parent.record is None:
            faults.append(Fault(FaultKind.PARENT_MISSING, digest, f"its parent {parent.trial} has no record"))
        elif parent.record not in store.sizes:
            words = f"the record {parent.record} of its parent {parent.trial} is not there"
            faults.append(Fault(FaultKind.PARENT_MISSING, digest, words))
        elif (other := store.records.get(parent.record)) is not None and other.trial != parent.trial:
            words = f"the record of its parent {parent.trial} is that of {other.trial}"
            faults.append(Fault(FaultKind.PARENT_MISSING, digest, words))
    trial = f"{record.namespace}/{record.trial}"
    return VerifiedRecord(digest, trial, record.phase, figures.metrics, tuple(faults))


def _resource(store: _Store, body: Mapping[str, Any]) -> Iterator[Fault]:
    metadata = body["metadata"]
    subject = f"{body['kind']} {metadata['namespace']}/{metadata['name']}"
    compare = _trial if body["kind"] == "GpuTrial" else _profile
    try:
        yield from compare(store, subject, body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(it) for it in first["loc"])
        yield Fault(FaultKind.DIFFERS, subject, f"cannot be read: {where}: {first['msg']}")


def _trial(store: _Store, subject: str, body: Mapping[str, Any]) -> Iterator[Fault]:
    metadata = body["metadata"]
    spec, status = TrialSpec.model_validate(body["spec"]), TrialStatus.model_validate(body.get("status") or {})
    if not status.phase.is_finished() or status.phase is TrialPhase.SKIPPED:
        return
    if status.artifact is None:
        why = next((f"{it.reason}: {it.message}" for it in status.conditions if it.type == "ArtifactStored"), "")
        yield Fault(FaultKind.NO_RECORD, subject, why or "no record was made of it")
        return
    record = store.records.get(status.artifact.digest)
    if record is None:
        yield from _missing(store, subject, status.artifact.digest)
        return
    of_record = {
        "namespace": record.namespace,
        "name": record.trial,
        "uid": record.uid,
        "experiment": record.lineage.experiment,
        "spec digest": record.lineage.spec_digest,
        "candidate": record.lineage.candidate,
        "repeat": record.lineage.repeat,
        "purpose": record.lineage.purpose,
        "generation": record.lineage.generation,
        "parents": tuple(it.trial for it in record.lineage.parents),
        "prediction": record.prediction,
        "phase": record.phase,
        "reason": record.reason,
        "servers": record.servers,
        "size": store.sizes[status.artifact.digest],
    }
    of_trial = {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "experiment": spec.experiment,
        "spec digest": metadata.get("annotations", {}).get(ANNOTATION_DIGEST, ""),
        "candidate": spec.candidate,
        "repeat": spec.repeat,
        "purpose": spec.purpose,
        "generation": spec.generation,
        "parents": spec.parents,
        "prediction": spec.prediction,
        "phase": status.phase,
        "reason": status.reason,
        "servers": status.servers,
        "size": status.artifact.bytes,
    }
    for name, value in of_trial.items():
        if of_record[name] != value:
            words = f"{name} is {_short(value)}, and {_short(of_record[name])} in its record"
            yield Fault(FaultKind.DIFFERS, subject, words)
    stated, stored = ({it.metric: it for it in them} for them in (status.measurements, record.measurements))
    for metric in sorted(stated.keys() | stored.keys()):
        now, then = stated.get(metric), stored.get(metric)
        if now != then:
            words = [f"{it.value} of {it.samples} samples" if it is not None else "absent" for it in (now, then)]
            yield Fault(FaultKind.DIFFERS, subject, f"{metric} is {words[0]}, and {words[1]} in its record")


def _profile(store: _Store, subject: str, body: Mapping[str, Any]) -> Iterator[Fault]:
    origin = ProfileSpec.model_validate(body["spec"]).provenance
    if origin is None or origin.artifact is None:
        return
    record = store.records.get(origin.artifact)
    if record is None:
        yield from _missing(store, subject, origin.artifact)
        return
    for name, stated, stored in (
        ("experiment", origin.experiment, f"{record.namespace}/{record.lineage.experiment}"),
        ("trial", origin.trial, record.trial),
        ("digest", origin.digest, record.lineage.spec_digest),
    ):
        if stated != stored:
            words = f"provenance.{name} is {stated}, and {stored} in the record that it names"
            yield Fault(FaultKind.DIFFERS, subject, words)


def _missing(store: _Store, subject: str, digest: str) -> Iterator[Fault]:
    """One that is there and damaged has been told already."""
    if digest not in store.sizes:
        yield Fault(FaultKind.MISSING, subject, f"{digest} is not in the store")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
