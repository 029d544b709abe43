"""The record of a trial: what was run, on what, what was measured, and what it descends from.

A record is stored as gzip over JSON with sorted keys, and is named by the SHA-256 of these bytes. The same trial gives
the same bytes, so that a pass which died after it had stored a record stores nothing new.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from cotune.api.base import ApiModel
from cotune.api.trial import (
    Assignment,
    Measurement,
    ObservedServer,
    Prediction,
    PredictionError,
    Purpose,
    TrialPhase,
)
from cotune.measurement.contract import CardIdentity, ProbeResult

LARGEST_RECORD = 1 << 28
"""Bytes of JSON: more is no record of a trial, whatever a few bytes of gzip promise."""


class RecordError(ValueError):
    """The bytes are no record that this version can read."""


class Variable(ApiModel):
    """An environment variable of a container."""

    name: str
    value: str | None = None
    """As it was written in the pod; None: it came from somewhere else."""
    source: str | None = None
    """From where, such as `secretKeyRef token/key`: what stood there is never recorded."""


class ContainerRun(ApiModel):
    """One container of a pod."""

    name: str
    image: str
    """As the template names it."""
    image_id: str = ""
    """The digest by which the kubelet ran it; empty: it never ran."""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[Variable, ...] = ()
    env_from: tuple[str, ...] = ()
    """Such as `configMapRef settings`."""
    requests: Mapping[str, str] = {}
    limits: Mapping[str, str] = {}
    restarts: Annotated[int, Field(ge=0)] = 0
    exit_code: int | None = None
    """None: it had not ended when the trial did."""


class PodRun(ApiModel):
    """The pod of a component, or of the probe."""

    component: str
    """`probe` for cotune's own."""
    name: str
    digest: str = ""
    """Of the whole pod as cotune asked for it."""
    init_containers: tuple[ContainerRun, ...] = ()
    containers: tuple[ContainerRun, ...] = ()
    cards: tuple[str, ...] = ()
    """UUIDs of the cards that the kubelet has given to it; empty: it does not say."""


class NodeFacts(ApiModel):
    """The machine."""

    name: str
    kubelet_version: str = ""
    kernel_version: str = ""
    os_image: str = ""
    container_runtime_version: str = ""


class TrialManifest(ApiModel):
    """What was run, and on what."""

    cotune_version: str
    probe_image: str
    """As the operator's installation names it."""
    seed: int
    """Of the load."""
    node: NodeFacts | None = None
    """None: the trial never had one."""
    card: CardIdentity | None = None
    """As the probe saw it; None: there was none, or the probe gave no result."""
    pods: tuple[PodRun, ...] = ()


class Parent(ApiModel):
    """A trial from which the search derived this one."""

    trial: str
    record: str | None = None
    """The digest of its record; None: it has none."""


class Lineage(ApiModel):
    """Where the trial comes from."""

    experiment: str
    experiment_uid: str
    spec_digest: str
    """Of the experiment's spec that the trial was made for."""
    candidate: tuple[Assignment, ...]
    repeat: Annotated[int, Field(ge=0)]
    purpose: Purpose
    series: Annotated[int, Field(ge=0)] = 0
    """Which comparison of its purpose the trial belongs to."""
    generation: Annotated[int, Field(ge=0)]
    parents: tuple[Parent, ...] = ()


class LogTail(ApiModel):
    """The end of what a pod's containers said."""

    component: str
    text: str


class TrialRecord(ApiModel):
    """All that is kept of a trial that was run, whatever came of it."""

    format: Literal["cotune.dev/trial-record/v1"] = "cotune.dev/trial-record/v1"
    namespace: str
    trial: str
    uid: str
    created_at: datetime
    """When the GpuTrial was created."""
    started_at: datetime | None = None
    """When it got its card; None: it never did."""
    phase: TrialPhase
    """In which it ended."""
    reason: str = ""
    message: str = ""
    lineage: Lineage
    manifest: TrialManifest
    prediction: Prediction | None = None
    prediction_errors: tuple[PredictionError, ...] = ()
    servers: tuple[ObservedServer, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    """What counts: the same as in the trial's status."""
    result: ProbeResult | None = None
    """What the probe said, also where it does not count."""
    logs: tuple[LogTail, ...] = ()
    """Of a trial that has failed or does not count."""


def canonical_bytes(record: TrialRecord) -> bytes:
    """The bytes by which a record is named and stored: the same for the same record, whenever they are made."""
    said = record.model_dump(mode="json", by_alias=True, exclude_none=True)
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # Half a character in what a server said has no encoding, and must not cost the record.
    return gzip.compress(text.encode(errors="replace"), mtime=0)


def digest_of(content: bytes) -> str:
    """The name of some bytes: `sha256:` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def parse_record(content: bytes) -> TrialRecord:
    """The record in such bytes.

    Raises:
        RecordError: they hold none that this version of cotune knows.
    """
    unpacking = zlib.decompressobj(wbits=31)
    try:
        text = unpacking.decompress(content, LARGEST_RECORD)
    except zlib.error as error:
        raise RecordError(f"not gzip: {error}") from error
    if not unpacking.eof:
        raise RecordError("cut off, or larger than any record")
    try:
        return TrialRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(it) for it in first["loc"]) or "the whole"
        raise RecordError(f"no record that cotune can read: {where}: {first['msg']}") from error
