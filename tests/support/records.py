"""A trial that has ended, made by the probe's own arithmetic, and its record."""

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from cotune.api.trial import Artifact, Measurement, TrialPhase, TrialSpec, TrialStatus
from cotune.api.workload import ArrivalType
from cotune.artifacts.making import Ended, make_record
from cotune.artifacts.record import NodeFacts, Parent, TrialRecord, canonical_bytes, digest_of
from cotune.measurement.card import Reading, card_conduct, card_samples
from cotune.measurement.clients import Answer, AnswerError, ErrorKind
from cotune.measurement.contract import CardIdentity, Conduct, ProbeResult
from cotune.measurement.record import StreamRecord, Window
from cotune.measurement.results import card_measurements, component_measurements, stream_report

START = datetime(2026, 11, 27, 12, tzinfo=UTC)
CARD = "GPU-00000000-0000-0000-0000-000000000001"
SPEC_DIGEST = f"sha256:{'5' * 64}"
EXPERIMENT_UID = "11111111-0000-0000-0000-000000000000"
SECRET = "hunter2"


def readings(count: int) -> list[Reading]:
    """Of a card that fills and works more and more, and whose driver knows no power."""
    return [
        Reading(
            used_mib=4000 + it / 3,
            free_mib=8000 - it / 3,
            total_mib=12288,
            utilization=(it % 100) / 100,
            processes=1,
            held={7: 900.0},
            sm_clock_mhz=1700 + it,
            temperature_celsius=60,
            seconds=it / 10,
        )
        for it in range(count)
    ]


def streams(drawn: random.Random, requests: int) -> list[StreamRecord]:
    """Two streams on one language model, with a few errors."""
    records = [StreamRecord(Window(0.0, requests / 10, 30.0)) for _ in range(2)]
    for record in records:
        for number in range(requests):
            due = number / 10
            record.sent(due, due + drawn.expovariate(1000), scheduled=True)
            if drawn.random() < 0.02:
                record.failed(due, due + 1, AnswerError("503", ErrorKind.STATUS), Answer(), is_streamed=True)
                continue
            first = due + drawn.lognormvariate(-3, 0.5)
            gaps = [drawn.expovariate(50) for _ in range(8)]
            answer = Answer(first_token=first, between_tokens=gaps, tokens=9)
            record.answered(due, due + 0.001, first + sum(gaps), answer)
    return records


def result(seed: int = 7, requests: int = 300, cards: int = 30, components: Sequence[str] = ("judge",)) -> ProbeResult:
    """What the probe makes of such streams on each component, and of a card's readings."""
    drawn = random.Random(seed)
    loads = {it: streams(drawn, requests) for it in components}
    seen = readings(cards)
    numbered = enumerate((name, of) for name, records in loads.items() for of in records)
    measured = (component_measurements(name, records, None) for name, records in loads.items())
    return ProbeResult(
        measurements=(*card_measurements(seen), *chain.from_iterable(measured)),
        streams=tuple(stream_report(name, it, ArrivalType.CONSTANT, of, ()) for it, (name, of) in numbered),
        conduct=Conduct(
            started_at=START,
            ended_at=START + timedelta(seconds=requests / 10),
            card=card_conduct(CARD, seen[0], seen),
        ),
        card_identity=CardIdentity(uuid=CARD, product="NVIDIA GeForce RTX 3060", memory_mib=12288),
        card_samples=card_samples(seen),
    )


def counted(said: ProbeResult) -> tuple[Measurement, ...]:
    """What the operator makes of it: with what it knows better, in order of the names."""
    more = [Measurement(metric=it, value="0", samples=1) for it in ("gpu.oomEvents", "judge.restarts")]
    return tuple(sorted((*said.measurements, *more), key=lambda it: it.metric))


def trial_body(name: str = "voice-1", parents: Sequence[str] = ()) -> dict[str, Any]:
    """The GpuTrial as the API server has it, before it has a status."""
    return {
        "apiVersion": "cotune.dev/v1alpha1",
        "kind": "GpuTrial",
        "metadata": {
            "name": name,
            "namespace": "voice-lab",
            "uid": f"uid-of-{name}",
            "creationTimestamp": "2026-11-27T11:58:00Z",
            "annotations": {"cotune.dev/spec-digest": SPEC_DIGEST},
            "ownerReferences": [{"uid": EXPERIMENT_UID, "controller": True}],
        },
        "spec": {
            "experiment": "voice",
            "candidate": [{"name": "judgeMemory", "value": "0.50"}],
            **({"parents": list(parents)} if parents else {}),
        },
    }


POD: Mapping[str, Any] = {
    "metadata": {
        "name": "voice-1-judge",
        "labels": {"cotune.dev/component": "judge"},
        "annotations": {"cotune.dev/spec-digest": "sha256:pod"},
    },
    "spec": {
        "containers": [
            {
                "name": "vllm",
                "image": "example/vllm:1",
                "args": ["--model=x"],
                "env": [
                    {"name": "JUDGE_MEMORY", "value": "0.50"},
                    {"name": "EMPTY"},
                    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "key"}}},
                    {"name": "NODE", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}},
                ],
                "envFrom": [{"secretRef": {"name": "more"}}, {"configMapRef": {"name": "plain"}, "prefix": "A_"}],
                "resources": {"limits": {"nvidia.com/gpu": "1"}, "requests": {"cpu": "1"}},
            }
        ]
    },
    "status": {
        "containerStatuses": [
            {"name": "vllm", "imageID": "example/vllm@sha256:1", "restartCount": 0, "state": {"running": {}}}
        ]
    },
}


def ended(
    name: str = "voice-1",
    said: ProbeResult | None = None,
    parents: Sequence[Parent] = (),
    phase: TrialPhase = TrialPhase.SUCCEEDED,
    logs: Mapping[str, str] | None = None,
) -> Ended:
    """A trial at its end."""
    body = trial_body(name, [it.trial for it in parents])
    status = TrialStatus(
        phase=phase,
        node="lab",
        started_at=START,
        measurements=counted(said) if said is not None and phase is TrialPhase.SUCCEEDED else (),
    )
    return Ended(
        body=body,
        spec=TrialSpec.model_validate(body["spec"]),
        status=status,
        pods=[POD],
        cards={"judge": [CARD]},
        node=NodeFacts(name="lab", kubelet_version="v1.36.1"),
        parents=parents,
        probe_image="example/probe:1",
        result=said,
        logs=logs or {},
    )


def record(name: str = "voice-1", said: ProbeResult | None = None, parents: Sequence[Parent] = ()) -> TrialRecord:
    """The record of a trial that has succeeded."""
    return make_record(ended(name, said or result(), parents))


def as_resource(kept: TrialRecord) -> dict[str, Any]:
    """The GpuTrial of a record, as `kubectl get -o json` gives it."""
    content = canonical_bytes(kept)
    status = TrialStatus(
        phase=kept.phase,
        reason=kept.reason,
        measurements=kept.measurements,
        artifact=Artifact(digest=digest_of(content), bytes=len(content)),
    )
    body = trial_body(kept.trial, [it.trial for it in kept.lineage.parents])
    return body | {"status": status.model_dump(mode="json", by_alias=True, exclude_none=True)}
