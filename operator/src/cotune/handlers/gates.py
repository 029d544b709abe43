"""The gates of stages that bake: samples are fetched beside the passes, which never wait for them.

What is in memory are requests under way. An operator that is killed asks again.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client import Counter

from cotune.api.gate import Gate, GateOutcome, GateStatus
from cotune.api.profile import ProfilePhase, Stage, StageStatus
from cotune.api.stage_probe import StageProbeStatus
from cotune.cluster.events import Events
from cotune.cluster.objects import Object
from cotune.cluster.prometheus import Prometheus, PrometheusError
from cotune.rollout import probe_gates
from cotune.rollout.gates import Baking, Look, Reading, Span, evaluate, gated, is_due, spans
from cotune.rollout.progress import Waiting
from cotune.rollout.stage import StageStep

_AT_ONCE = 4
"""Queries that run at the same time, over all profiles."""

LOOKS = Counter("cotune_gate_looks_total", "Looks at gates of stages.", ["outcome"])

_Key = tuple[str, str, str, int]
"""Profile's uid, stage, gate, generation of the spec."""


@dataclass(frozen=True)
class Gates:
    """The operator's Prometheus, if it has one, and the looks that are under way."""

    prometheus: Prometheus | None = None
    _under_way: dict[_Key, "asyncio.Task[Look]"] = field(default_factory=dict["_Key", "asyncio.Task[Look]"])
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    def hindrance(self, stage: Stage) -> Waiting | None:
        """Why a stage with gates must not begin."""
        if self.prometheus is not None or all(it.dry_run or it.prom_ql is None for it in stage.gates):
            return None
        message = f"stage {stage.name} has gates, and the operator was given no Prometheus to ask"
        return Waiting("NoPrometheus", message, is_stalled=True)

    def judged(self, body: Object, stage: Stage, state: StageStatus, step: StageStep, now: datetime) -> StageStep:
        """The step with what is known of the stage's gates; where it is time to look again, a look begins."""
        uid = str(body["metadata"]["uid"])
        if state.phase is not ProfilePhase.BAKING or not stage.gates:
            self._forget(uid)
            return step
        since = state.phase_started_at or now
        baking = Baking(state.started_at or since, since, body["metadata"]["generation"])
        last = {it.name: it for it in state.gates}
        states = [self._looked(body, stage, it, last.get(it.name), state.probe, baking, now) for it in stage.gates]
        step = gated(stage, step, [it for it in states if it is not None], baking, now)
        if step.phase is not ProfilePhase.BAKING:
            self._forget(uid)
        return step

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._under_way.values())
        for it in tasks:
            it.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._under_way.clear()

    def _looked(
        self,
        body: Object,
        stage: Stage,
        gate: Gate,
        last: GateStatus | None,
        record: StageProbeStatus | None,
        baking: Baking,
        now: datetime,
    ) -> GateStatus | None:
        if gate.prom_ql is None:
            return self._probed(stage, gate, record, last, baking, now)
        key = (str(body["metadata"]["uid"]), stage.name, gate.name, baking.generation)
        task = self._under_way.get(key)
        if task is not None and task.done():
            del self._under_way[key]
            last = evaluate(stage, gate, task.result(), baking)
            LOOKS.labels(str(last.outcome)).inc()
        if key not in self._under_way and is_due(stage, gate, last, baking, now):
            of_stage, of_baseline = spans(gate, baking, now)
            self._under_way[key] = asyncio.create_task(self._look(gate, of_stage, of_baseline))
        return last

    def _probed(
        self,
        stage: Stage,
        gate: Gate,
        record: StageProbeStatus | None,
        last: GateStatus | None,
        baking: Baking,
        now: datetime,
    ) -> GateStatus | None:
        """What the runs on record say: nothing is asked of anybody."""
        if stage.probe is None or record is None:
            return last
        found = probe_gates.judged(stage, stage.probe, gate, record, baking, now)
        if found != last:
            LOOKS.labels(str(found.outcome)).inc()
        return found

    async def _look(self, gate: Gate, of_stage: Span, of_baseline: Span | None) -> Look:
        async with self._turns:
            reading = await self._read(gate, of_stage)
            baseline = await self._read(gate, of_baseline) if of_baseline is not None else None
        return Look(of_stage.end, reading, baseline)

    async def _read(self, gate: Gate, span: Span) -> Reading:
        if self.prometheus is None:
            return Reading(error="the operator was given no Prometheus to ask")
        assert gate.prom_ql is not None  # What a probe shows is on record.
        try:
            return Reading(await self.prometheus.samples(gate.prom_ql.query, span.start, span.end, span.step))
        except PrometheusError as error:
            return Reading(error=str(error))

    def _forget(self, uid: str) -> None:
        for key in [it for it in self._under_way if it[0] == uid]:
            self._under_way.pop(key).cancel()


async def tell_outcomes(events: Events, body: Object, old: StageStatus | None, new: StageStatus, now: datetime) -> None:
    """Events for the gates of a stage that have another outcome than before."""
    was = {it.name: it.outcome for it in old.gates} if old is not None else {}
    for it in new.gates:
        if was.get(it.name) is it.outcome:
            continue
        match it.outcome:
            case GateOutcome.PASSED:
                reason = "GatePassed"
            case GateOutcome.FAILED:
                reason = "GateFailed"
            case GateOutcome.INCONCLUSIVE | GateOutcome.NO_DATA | GateOutcome.NAN | GateOutcome.ERROR:
                reason = "GateUndecided"
        note = f"stage {new.name}: gate {it.name}: {it.outcome}: {it.message}"
        warning = it.outcome in {GateOutcome.FAILED, GateOutcome.ERROR}
        await events.tell(body, reason, note, "Rollout", now, warning=warning)
