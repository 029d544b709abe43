"""A stage of several stacks, batch by batch: what `cotune.rollout.stage` decides of one stack, decided of each.

Forward, only the stacks of the batch under way are stopped; those of earlier batches bake on, and those of later ones
are not looked at. Backward, the batches go in the reverse order, each when those behind it are back; only a stack that
serves nobody any more does not wait for its turn. A stack that was not changed is not stopped in either direction.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime

from cotune.api.batches import StageBatch
from cotune.api.profile import Chance, ProfilePhase, Stage, StageStatus
from cotune.rollout.convergence import converge
from cotune.rollout.stacks import of_stacks, stack_of
from cotune.rollout.stage import StageStep, decide
from cotune.rollout.state import ObservedWorkload, Revision
from cotune.rollout.targets import Targets

_TOLD = 8
"""Of how many stacks a message speaks."""


def plan(
    batches: Sequence[str], stacks: Sequence[str], nodes: Mapping[str, Set[str]] | None = None
) -> Sequence[Sequence[str]]:
    """Which stacks go together, in order; no batch is empty, and the last one takes what is left.

    Args:
        batches: as a stage has them: cumulative, numbers or percentages.
        stacks: in the order of their names.
        nodes: stack to the nodes on which it has pods. What shares a node goes together, and nodes are counted; None:
            stacks are.
    """
    units = [[it] for it in stacks] if nodes is None else _by_node(stacks, nodes)
    ends = [min(_count(it, len(units)), len(units)) for it in batches] + [len(units)]
    found: list[Sequence[str]] = []
    begin = 0
    for end in ends:
        if end > begin:
            found.append([stack for unit in units[begin:end] for stack in unit])
            begin = end
    return found


def _count(batch: str, whole: int) -> int:
    return -(-whole * int(batch[:-1]) // 100) if batch.endswith("%") else int(batch)


def _by_node(stacks: Sequence[str], nodes: Mapping[str, Set[str]]) -> list[list[str]]:
    """Stacks that hang together by the nodes of their pods; a stack without a node is for itself, at the end."""
    groups: list[tuple[set[str], list[str]]] = []
    for stack in stacks:
        names, members = set(nodes.get(stack, ())), [stack]
        for group in [it for it in groups if it[0] & names]:
            groups.remove(group)
            names, members = names | group[0], [*group[1], *members]
        groups.append((names, members))
    groups.sort(key=lambda it: (not it[0], sorted(it[0]), min(it[1])))
    return [sorted(members) for _, members in groups]


def first_batch(planned: Sequence[Sequence[str]], now: datetime) -> tuple[StageBatch, ...]:
    """The batches of a stage that begins with the first of them."""
    return tuple(StageBatch(stacks=tuple(it), started_at=now if n == 0 else None) for n, it in enumerate(planned))


def with_begun(batches: Sequence[StageBatch], number: int, now: datetime) -> tuple[StageBatch, ...]:
    """The batches, of which the first `number` have begun."""
    return tuple(
        it.model_copy(update={"started_at": now}) if n <= number and it.started_at is None else it
        for n, it in enumerate(batches, 1)
    )


def all_batches(state: StageStatus, now: datetime) -> StageStatus:
    """The state of a stage of which every stack is to be taken somewhere, the last batch first."""
    number = len(state.batches)
    return state.model_copy(update={"batch": number or None, "batches": with_begun(state.batches, number, now)})


@dataclass(frozen=True)
class Course:
    """Where a stage is among its batches."""

    batches: tuple[StageBatch, ...]
    number: int
    """Of the batch under way, from 1 on."""

    @classmethod
    def of(cls, state: StageStatus) -> "Course | None":
        """None: the stage's namespace has one stack, and it is not divided."""
        return cls(state.batches, state.batch or 1) if state.batches else None

    @property
    def begun(self) -> tuple[str, ...]:
        """The stacks that may have been changed."""
        return tuple(stack for it in self.batches if it.started_at is not None for stack in it.stacks)

    @property
    def current(self) -> tuple[str, ...]:
        """The stacks of the batch under way."""
        return self.batches[self.number - 1].stacks

    @property
    def is_last(self) -> bool:
        """Whether no batch follows."""
        return self.number == len(self.batches)

    def number_of(self, stack: str) -> int:
        """The batch of a stack, from 1 on."""
        return next(n for n, it in enumerate(self.batches, 1) if stack in it.stacks)


def decide_in_batches(
    stage: Stage,
    course: Course,
    phase: ProfilePhase,
    phase_since: datetime,
    target: Revision,
    last_good: Revision,
    observed: Mapping[str, ObservedWorkload],
    now: datetime,
    unready_since: datetime | None = None,
    chances: Sequence[Chance] = (),
) -> StageStep:
    """The next step of a stage of several stacks; `Promoted` says that the batch is through, the last one or not.

    Args:
        stage: as the spec has it now.
        course: where it is.
        phase: of the stage.
        phase_since: since when its batch is in it.
        target: what all stacks shall be in the end, by key.
        last_good: what they were.
        observed: what the stacks that may have been changed are, by key; others are not asked for.
        now: the time.
        unready_since: since when a workload is not ready that should be.
        chances: signs of failure that were waited for before.
    """
    parts = [_Part.of(it, course.number_of(it), target, last_good, observed) for it in course.begun]
    if phase in {ProfilePhase.ROLLING_BACK, ProfilePhase.DEGRADED}:
        return _back(stage, course, phase, phase_since, parts, now)
    return _forward(stage, course, phase, phase_since, parts, now, unready_since, chances)


@dataclass(frozen=True)
class _Part:
    """One stack."""

    stack: str
    batch: int
    target: Revision
    last_good: Revision
    observed: Mapping[str, ObservedWorkload]

    @classmethod
    def of(
        cls, stack: str, batch: int, target: Revision, last_good: Revision, observed: Mapping[str, ObservedWorkload]
    ) -> "_Part":
        return cls(stack, batch, part(target, [stack]), part(last_good, [stack]), of_stacks(observed, [stack]))

    @property
    def serves(self) -> bool:
        """Whether all of it is there and ready: stopping it would take something from somebody."""
        return all(
            (seen := self.observed.get(it.component)) is not None and seen.is_ready and seen.replicas > 0
            for it in self.last_good.workloads
        )

    @property
    def is_back(self) -> bool:
        """Whether it is what it was before, all of it ready."""
        return converge(self.last_good, self.observed, is_way_back=True).is_complete

    @property
    def awaits_only_what_is_gone(self) -> bool:
        """Whether all that is left of it is back: nobody knows whether the rest will ever be there again."""
        present = Revision(tuple(it for it in self.last_good.workloads if it.component in self.observed))
        return present != self.last_good and converge(present, self.observed, is_way_back=True).is_complete


def part(revision: Revision, stacks: Sequence[str]) -> Revision:
    """Some stacks of a revision."""
    return Revision(tuple(it for it in revision.workloads if stack_of(it.component) in stacks))


def _forward(
    stage: Stage,
    course: Course,
    phase: ProfilePhase,
    phase_since: datetime,
    parts: Sequence[_Part],
    now: datetime,
    unready_since: datetime | None,
    chances: Sequence[Chance],
) -> StageStep:
    steps: dict[str, StageStep] = {}
    leaving = sum(it.leaving for each in parts if each.batch == course.number for it in each.observed.values())
    for it in parts:
        mine = [chance for chance in chances if stack_of(chance.component) == it.stack]
        is_earlier = it.batch < course.number
        # Room on a node, or in a quota, may be made by any stack that is being stopped.
        seen = it.observed if is_earlier else {n: replace(each, leaving=leaving) for n, each in it.observed.items()}
        own = ProfilePhase.BAKING if is_earlier else phase
        made = decide(stage, own, phase_since, it.target, it.last_good, seen, now, unready_since, mine)
        steps[it.stack] = replace(made, chances=made.chances if made.chances is not None else tuple(mine))
    found = tuple(chance for it in steps.values() for chance in it.chances or ())
    obstacle = next((it.obstacle for it in steps.values() if it.obstacle is not None), None)
    failed = [it for it in steps.values() if it.phase is ProfilePhase.ROLLING_BACK]
    if failed:
        why = _told([it.message for it in failed])
        return StageStep(ProfilePhase.ROLLING_BACK, why, obstacle=obstacle, chances=found)
    since = min((it.unready_since for it in steps.values() if it.unready_since is not None), default=None)
    common = StageStep(phase, obstacle=obstacle, unready_since=since, chances=found)
    where = f"batch {course.number} of {len(course.batches)}"
    current = [steps[it] for it in course.current]
    earlier = [it for stack, it in steps.items() if stack not in course.current and it.unready_since is not None]
    if phase is ProfilePhase.PROGRESSING:
        if all(it.phase is ProfilePhase.BAKING for it in current):
            return replace(common, phase=ProfilePhase.BAKING)
        working = [it for it in current if it.phase is ProfilePhase.PROGRESSING]
        actions = tuple(action for it in working for action in it.actions)
        message = _told([it.message for it in (*working, *earlier)])
        return replace(common, message=f"{where}: {message}", actions=actions)
    if all(it.phase is ProfilePhase.PROMOTED for it in steps.values()):
        generations = {name: it for step in steps.values() for name, it in (step.guarded or {}).items()}
        message = steps[course.current[0]].message
        return replace(common, phase=ProfilePhase.PROMOTED, message=message, guarded=generations or None)
    waiting = list(dict.fromkeys(it.message for it in steps.values() if it.phase is ProfilePhase.BAKING))
    return replace(common, message=f"{where}: {_told(waiting)}")


def _back(
    stage: Stage, course: Course, phase: ProfilePhase, phase_since: datetime, parts: Sequence[_Part], now: datetime
) -> StageStep:
    """The last batch that is not back has its turn, and each has the stage's deadline for itself.

    A workload that somebody has deleted is waited for in the end, and keeps no other stack from its way back.
    """
    left = [it for it in parts if not it.is_back]
    if not left:
        return StageStep(ProfilePhase.ROLLED_BACK)
    turn = max(it.batch for it in [it for it in left if not it.awaits_only_what_is_gone] or left)
    number = min(turn, course.number)
    since = now if number < course.number else phase_since
    steps = [
        decide(stage, phase, since, it.target, it.last_good, it.observed, now)
        for it in left
        if it.batch == turn or not it.serves
    ]
    obstacle = next((it.obstacle for it in steps if it.obstacle is not None), None)
    is_late = any(it.phase is ProfilePhase.DEGRADED for it in steps)
    return StageStep(
        ProfilePhase.DEGRADED if is_late else phase,
        f"batch {number} of {len(course.batches)}: {_told([it.message for it in steps])}",
        tuple(action for it in steps for action in it.actions),
        obstacle,
        batch=number,
    )


def next_batch(course: Course, step: StageStep, is_paused: bool) -> StageStep:
    """The step of a stage whose batch may be through: then the next one begins, unless this was the last.

    Nothing is stopped in the pass that says so: what was not written down has not begun.
    """
    if step.phase is not ProfilePhase.PROMOTED or course.is_last:
        return step
    through = f"batch {course.number} of {len(course.batches)} is through"
    if is_paused:
        return replace(
            step, phase=ProfilePhase.BAKING, message=f"{through}; paused: no further one begins", guarded=None
        )
    number = course.number + 1
    stacks = _told(course.batches[number - 1].stacks)
    message = f"{through}; batch {number} begins: {stacks}"
    return replace(
        step, phase=ProfilePhase.PROGRESSING, message=message, guarded=None, gates=(), batch=number, unready_since=None
    )


def with_appeared(step: StageStep, targets: Targets) -> StageStep:
    """The step that also tells of stacks that the stage does not know."""
    if not targets.appeared or step.phase in {ProfilePhase.ROLLING_BACK, ProfilePhase.DEGRADED}:
        return step
    told = f"stack {', '.join(targets.appeared)} has appeared since the stage began, and is left alone"
    return replace(step, message=f"{step.message}; {told}" if step.message else told)


def _told(what: Sequence[str]) -> str:
    more = f"; and {len(what) - _TOLD} more" if len(what) > _TOLD else ""
    return "; ".join(what[:_TOLD]) + more
