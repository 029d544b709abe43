"""A profile as a tree: its stages, their gates, and how long they still take."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cotune.api.batches import StageBatch
from cotune.api.downtime import ExpectedDowntime
from cotune.api.gate import GateStatus
from cotune.api.profile import ProfilePhase, ProfileSpec, ProfileStatus, Stage, StageStatus
from cotune.api.surge import SurgePhase
from cotune.rollout.batches import Course
from cotune.rollout.progress import ON_THE_WAY_BACK, by_name, current_stage, hindrance


@dataclass(frozen=True)
class _Row:
    """One line below the profile's."""

    cells: Sequence[str]
    children: Sequence[Sequence[str]] = ()


def profile_tree(key: str, spec: ProfileSpec, status: ProfileStatus, now: datetime) -> str:
    """The tree, without a line break at its end."""
    flags = [name for name, is_set in (("paused", spec.rollout.paused), ("aborted", spec.rollout.abort)) if is_set]
    head = [f"{key}  {status.phase}", *flags, *([f"retry {status.retries}"] if status.retries else [])]
    changes = [
        f"  {it.component}: {it.env}={it.to}{'' if it.from_ is None else f' (was {it.from_})'}" for it in spec.changes
    ]
    states = by_name(status)
    current = current_stage(spec, status)
    cost = status.expected_downtime
    rows = [_row(spec, it, states.get(it.name), it == current, cost, now) for it in spec.rollout.stages]
    return "\n".join([", ".join(head), *changes, *_drawn(rows), *_troubles(status)])


def _row(
    spec: ProfileSpec,
    stage: Stage,
    state: StageStatus | None,
    is_current: bool,
    cost: ExpectedDowntime | None,
    now: datetime,
) -> _Row:
    looks = {it.name: it for it in state.gates} if state is not None else {}
    gates = [_gate(it.name, looks.get(it.name), it.dry_run) for it in stage.gates]
    if state is None:
        held = hindrance(spec, stage, now) if is_current else None
        when = held.message if held is not None else ("begins next" if is_current else f"approval {stage.approval}")
        if cost is not None and cost.stage == stage.name:
            seconds = "unknown" if cost.seconds is None else f"{cost.seconds} s"
            when = f"{when}; expected downtime {seconds}"
        return _Row((stage.name, stage.namespace, "-", when), gates)
    course = Course.of(state)
    told = _time(stage, state, now) if course is None else "; ".join(_in_batches(course, stage, state, now))
    batches = _batches(course, state) if course is not None else []
    return _Row((stage.name, stage.namespace, str(state.phase), told), [*batches, *gates])


def _in_batches(course: Course, stage: Stage, state: StageStatus, now: datetime) -> Iterator[str]:
    stacks = sum(len(it.stacks) for it in course.batches)
    yield f"batch {course.number} of {len(course.batches)}, {len(course.begun)} of {stacks} stacks"
    if told := _time(stage, state, now):
        yield told


def _batches(course: Course, state: StageStatus) -> "list[Sequence[str]]":
    """Each with what has become of it."""
    is_back = state.phase in {*ON_THE_WAY_BACK, ProfilePhase.ROLLED_BACK}

    def phase(number: int, it: StageBatch) -> str:
        if it.started_at is None:
            return "-"
        if state.phase is ProfilePhase.ROLLED_BACK or (is_back and number > course.number):
            return str(ProfilePhase.ROLLED_BACK)
        if number == course.number:
            return str(state.phase)
        return "WaitsForItsTurn" if is_back else "Through"

    return [(f"batch {n}", phase(n, it), ", ".join(it.stacks)) for n, it in enumerate(course.batches, 1)]


def _gate(name: str, look: GateStatus | None, dry_run: bool) -> Sequence[str]:
    named = f"gate {name}{' (dry run)' if dry_run else ''}"
    return (named, "-", "") if look is None else (named, str(look.outcome), look.message)


def _time(stage: Stage, state: StageStatus, now: datetime) -> str:
    """How long it still takes, or took, and what is said of it."""
    since = state.phase_started_at or now
    deadline = timedelta(seconds=stage.readiness_deadline_seconds)
    match state.phase:
        case ProfilePhase.PROGRESSING if state.surge is not None and state.surge.phase is SurgePhase.STARTING:
            left = _duration(state.surge.since + deadline - now)
            told = "waits for room" if state.surge.reason else f"at most {left} until its bridge serves"
        case ProfilePhase.PROGRESSING:
            told = f"at most {_duration(since + deadline - now)} until it is ready"
        case ProfilePhase.BAKING:
            left = since + timedelta(seconds=stage.bake_seconds) - now
            told = f"{_duration(left)} of bake time left" if left > timedelta() else "the bake time is over"
        case ProfilePhase.ROLLING_BACK:
            told = f"at most {_duration(since + deadline - now)} until it is back"
        case _:
            took = state.finished_at - state.started_at if state.finished_at and state.started_at else None
            told = f"took {_duration(took)}" if took is not None else ""
    return "; ".join(it for it in (told, _downtime(state, now), state.message, _memory(state)) if it)


def _memory(state: StageStatus) -> str:
    """What is known of its pods' memory on the card; empty: nothing worth saying, or its message has it."""
    memory = state.memory
    if memory is None or memory.reason is None or memory.message in state.message:
        return ""
    return f"{memory.reason}: {memory.message}"


def _downtime(state: StageStatus, now: datetime) -> str:
    """For how long its services are or were down, beside what was expected; empty: not yet, or not known."""
    downtime = state.downtime
    if downtime is None:
        return ""
    expected = f" ({downtime.expected_seconds} s expected)" if downtime.expected_seconds is not None else ""
    if downtime.since is not None:
        return f"down for {_duration(now - downtime.since)}{expected}"
    return "" if downtime.measured_seconds is None else f"down for {downtime.measured_seconds} s{expected}"


def _duration(span: timedelta) -> str:
    seconds = max(round(span.total_seconds()), 0)
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h {seconds % 3600 // 60} min"


def _drawn(rows: Sequence[_Row]) -> Iterator[str]:
    stages, gates = _widths([it.cells for it in rows]), _widths([gate for it in rows for gate in it.children])
    for number, row in enumerate(rows):
        is_last = number == len(rows) - 1
        yield f"{'└─' if is_last else '├─'} {_aligned(row.cells, stages)}"
        for place, child in enumerate(row.children):
            branch = "└─" if place == len(row.children) - 1 else "├─"
            yield f"{' ' if is_last else '│'}  {branch} {_aligned(child, gates)}"


def _widths(rows: Sequence[Sequence[str]]) -> Sequence[int]:
    return [max(len(it) for it in column) for column in zip(*rows, strict=True)]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _troubles(status: ProfileStatus) -> Iterator[str]:
    for it in status.conditions:
        if it.type == "Stalled" and it.status == "True":
            yield f"  Stalled: {it.reason}: {it.message}"
