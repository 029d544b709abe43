"""A stage that is taken to a stored revision of its namespace because somebody has asked for it.

It is a way back like any other, only that a person has said where it leads: nothing takes it back in its turn.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from cotune.api.profile import (
    AskedOutcome,
    AskedRevision,
    ProfilePhase,
    ProfileSpec,
    ProfileStatus,
    Stage,
    StageStatus,
)
from cotune.rollout.progress import begun
from cotune.rollout.state import ObservedWorkload, Revision, StoredRevision, WorkloadRevision
from cotune.rollout.targets import Refusal


def unanswered(spec: ProfileSpec, status: ProfileStatus) -> list[tuple[Stage, StageStatus]]:
    """The stages whose `toRevision` is another than the one on record, was refused, or waits for something.

    One that waits for Git has not begun: nothing of it is there to be taken anywhere.
    """
    open_ = {AskedOutcome.REFUSED, AskedOutcome.WAITING}

    def is_open(stage: Stage, state: StageStatus) -> bool:
        asked = state.asked
        if asked is None or stage.to_revision != asked.revision:
            return stage.to_revision != (asked.revision if asked is not None else None)
        return asked.outcome in open_

    return [
        (stage, state)
        for stage, state in begun(spec, status)
        if state.phase is not ProfilePhase.PENDING and is_open(stage, state)
    ]


def refused(stages: Sequence[StageStatus]) -> AskedRevision | None:
    """The first `toRevision` that is refused."""
    return next((it.asked for it in stages if it.asked and it.asked.outcome is AskedOutcome.REFUSED), None)


def answered(
    state: StageStatus, revision: str, outcome: AskedOutcome, reason: str, message: str, now: datetime
) -> StageStatus:
    """The state with an answer; one that says the same as before is the same."""
    new = AskedRevision(revision=revision, outcome=outcome, reason=reason, message=message[:2048], at=now)
    if state.asked is not None and state.asked.model_copy(update={"at": now}) == new:
        return state
    return state.model_copy(update={"asked": new})


def taken_back(state: StageStatus, message: str, now: datetime) -> StageStatus:
    """The state of a stage whose way back begins now."""
    return state.model_copy(
        update={
            "phase": ProfilePhase.ROLLING_BACK,
            "phase_started_at": now,
            "unready_since": None,
            "finished_at": None,
            "guarded": (),
            "message": message[:4096],
        }
    )


def of_stack(stored: Sequence[StoredRevision], components: Collection[str]) -> list[StoredRevision]:
    """The revisions of the same components; a namespace may have those of other stacks, too."""
    return [it for it in stored if set(it.targets) == set(components)]


def stood_ready(revision: StoredRevision, stored: Sequence[StoredRevision], state: StageStatus) -> bool:
    """Whether a namespace is known to have been ready with a revision.

    It was found there when a stage began, or another one with the same values and replicas was; or it is what the stage
    was promoted with.
    """
    is_promoted = state.phase is ProfilePhase.PROMOTED and state.revision == revision.name
    return is_promoted or any(
        it.was_found and _content(it.revision) == _content(revision.revision)
        for it in stored
        if _places(it) == _places(revision)
    )


def choose(
    name: str, stored: Sequence[StoredRevision], components: Sequence[str], state: StageStatus, namespace: str
) -> StoredRevision | Refusal:
    """The revision of this name, if the stage may be taken to it."""
    revision = next((it for it in stored if it.name == name), None)
    if revision is None:
        return Refusal(
            "RevisionUnknown", f"namespace {namespace} has no revision {name}{_listed(stored, components, state)}"
        )
    if set(revision.targets) != set(components):
        has = f"revision {name} is of {', '.join(revision.targets)}, the profile of {', '.join(components)}"
        return Refusal("RevisionOfAnotherStack", has + _listed(stored, components, state))
    if not stood_ready(revision, stored, state):
        why = f"nothing on record says that namespace {namespace} was ever ready with revision {name}"
        return Refusal("RevisionNotGood", why + _listed(stored, components, state))
    return revision


def _listed(stored: Sequence[StoredRevision], components: Sequence[str], state: StageStatus) -> str:
    good = [f"{it.name} ({it.number})" for it in of_stack(stored, components) if stood_ready(it, stored, state)]
    return f": there are {', '.join(good)}" if good else ": there is none to go to"


def completed(
    chosen: StoredRevision, stored: Sequence[StoredRevision], observed: Mapping[str, ObservedWorkload]
) -> Revision | Refusal:
    """The chosen revision with the variables that cotune has come to set since, as they were before it did.

    The first revision that was found later and knows such a variable is the one before its first change.
    """
    later = [it for it in stored if it.was_found and it.number > chosen.number and _places(it) == _places(chosen)]
    workloads: list[WorkloadRevision] = []
    for it in chosen.revision.workloads:
        values = dict(it.values)
        for name in sorted(observed[it.component].values.keys() - values.keys()):
            known = [_values(revision.revision, it.component) for revision in later]
            before = next((found for found in known if name in found), None)
            if before is None:
                why = f"no revision says what {name} of {it.component} was at the time of {chosen.name}"
                return Refusal("RevisionIncomplete", why)
            values[name] = before[name]
        workloads.append(WorkloadRevision(it.component, values, it.replicas))
    return Revision(tuple(workloads))


def is_present(revision: Revision, observed: Mapping[str, ObservedWorkload]) -> bool:
    """Whether the workloads have the values and replicas of a revision, ready or not."""
    return all(
        it.component in observed
        and observed[it.component].replicas == it.replicas
        and not observed[it.component].unbindable
        and all(observed[it.component].values.get(name) == value for name, value in it.values.items())
        for it in revision.workloads
    )


def _content(revision: Revision) -> Mapping[str, tuple[Mapping[str, str | None], int]]:
    return {it.component: (dict(it.values), it.replicas) for it in revision.workloads}


def _values(revision: Revision, component: str) -> Mapping[str, str | None]:
    return next(it.values for it in revision.workloads if it.component == component)


def _places(revision: StoredRevision) -> Mapping[str, tuple[str, str]]:
    return {name: (it.workload.name, it.container) for name, it in revision.targets.items()}
