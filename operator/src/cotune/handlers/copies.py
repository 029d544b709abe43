"""What an experiment copies from other namespaces: its stack, and what its winner's changes are validated on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cotune.api.conditions import Condition, with_condition
from cotune.api.experiment import ExperimentSpec, ExperimentStatus, TargetSummary
from cotune.cluster.copied_stacks import CopiedStacks
from cotune.cluster.objects import ForbiddenError, Object, Objects
from cotune.handlers.statuses import condition
from cotune.trials.copied_stack import CopiedStack, CopyRefusal, differences, other_values, with_stack

STACK_COPIED, TARGET_COPIED, SIMPLER = "StackCopied", "TargetCopied", "SimplerThanTarget"


class CopyRefusedError(Exception):
    """What the experiment asks for cannot be copied (now)."""

    def __init__(self, refusal: CopyRefusal) -> None:
        super().__init__(refusal.message)
        self.reason = refusal.reason
        self.message = refusal.message


@dataclass(frozen=True)
class _Copy:
    """A copy and its name in the experiment's namespace."""

    ref: str
    stack: CopiedStack


class Copies:
    """Makes an experiment's copies, and finds them again."""

    def __init__(self, objects: Objects) -> None:
        self._stacks = CopiedStacks(objects)

    async def begin(
        self, body: Object, spec: ExperimentSpec, status: ExperimentStatus, now: datetime
    ) -> ExperimentStatus:
        """The status with what is copied before the first trial.

        Raises:
            CopyRefusedError: what the spec names may not be copied.
            ForbiddenError: the operator has no right to read it.
            NameTakenError: the copy's name is somebody else's.
        """
        if spec.stack.from_namespace is not None:
            copy = await self._copy(body, spec, spec.stack.from_namespace.name)
            if isinstance(copy, CopyRefusal):
                raise CopyRefusedError(copy)
            told = condition(STACK_COPIED, True, _generation(body), now, "Copied", _told(spec, copy))
            conditions = with_condition(status.conditions, told)
            status = status.model_copy(update={"stack_ref": copy.ref, "conditions": conditions})
        return await self._with_target(body, spec, status, now) if spec.validated_in is not None else status

    async def read_again(
        self, body: Object, spec: ExperimentSpec, status: ExperimentStatus, now: datetime
    ) -> ExperimentStatus:
        """The status with what runs in the target now that validation begins; nothing else is run in it.

        Raises:
            CopyRefusedError: the target that the spec names may not be copied.
            ForbiddenError: the operator has no right to read it.
            NameTakenError: the copy's name is somebody else's.
        """
        new = await self._with_target(body, spec, status, now)
        assert new.target is not None  # An experiment that validates has one.
        return new.model_copy(update={"target": new.target.model_copy(update={"read_for_validation": True})})

    async def in_place(self, namespace: str, spec: ExperimentSpec, ref: str | None) -> ExperimentSpec:
        """The experiment with a copy in the place of its stack; without one as it is.

        Raises:
            CopyRefusedError: somebody has deleted the copy.
        """
        if ref is None:
            return spec
        found = await self._stacks.find(namespace, ref)
        if found is None:
            raise CopyRefusedError(CopyRefusal("StackGone", f"there is no ControllerRevision {ref} any more"))
        return with_stack(spec, found)

    async def _copy(self, body: Object, spec: ExperimentSpec, namespace: str) -> _Copy | CopyRefusal:
        source = body["metadata"]["namespace"]
        found = await self._stacks.read(namespace, source, [it.name for it in spec.stack.components])
        return found if isinstance(found, CopyRefusal) else _Copy(await self._stacks.ensure(found, body), found)

    async def _with_target(
        self, body: Object, spec: ExperimentSpec, status: ExperimentStatus, now: datetime
    ) -> ExperimentStatus:
        namespace = spec.validated_in
        assert namespace is not None  # Both callers have looked.
        try:
            copy = await self._copy(body, spec, namespace)
        except ForbiddenError as error:
            if spec.validation is not None:
                raise
            copy = CopyRefusal("Forbidden", error.message)
        generation = _generation(body)
        if isinstance(copy, CopyRefusal):
            if spec.validation is not None:
                raise CopyRefusedError(copy)
            words = f"{copy.message}: the winner's changes are validated on the experiment's own stack"
            told = condition(TARGET_COPIED, False, generation, now, copy.reason, words)
            conditions = tuple(it for it in with_condition(status.conditions, told) if it.type != SIMPLER)
            target = TargetSummary(namespace=namespace)
            return status.model_copy(update={"target": target, "conditions": conditions})
        own = [it.name for it in spec.stack.components]
        target = TargetSummary(namespace=namespace, stack_ref=copy.ref, beside=copy.stack.beside(own))
        conditions = with_condition(status.conditions, await self._compared(body, spec, status, copy, now))
        missing = await self._missing(body, spec, status, copy.stack)
        conditions = with_condition(conditions, _simpler(namespace, missing, generation, now))
        return status.model_copy(update={"target": target, "conditions": conditions})

    async def _compared(
        self, body: Object, spec: ExperimentSpec, status: ExperimentStatus, copy: _Copy, now: datetime
    ) -> Condition:
        """The target's condition, with what has changed there since the experiment began."""
        told, earlier = _told(spec, copy), status.target.stack_ref if status.target is not None else None
        if earlier is None or earlier == copy.ref:
            return condition(TARGET_COPIED, True, _generation(body), now, "Copied", told)
        before = await self._stacks.find(body["metadata"]["namespace"], earlier)
        words = ", ".join(differences(before, copy.stack)) if before is not None else "it is not what it was"
        message = f"since the experiment began, {words}; {told}"
        return condition(TARGET_COPIED, True, _generation(body), now, "TargetChanged", message)

    async def _missing(
        self, body: Object, spec: ExperimentSpec, status: ExperimentStatus, target: CopiedStack
    ) -> tuple[str, ...]:
        """What runs in the target and not in the trials of the search."""
        searched = await self.in_place(body["metadata"]["namespace"], spec, status.stack_ref)
        return target.beside([it.name for it in searched.stack.components])


def _simpler(namespace: str, missing: Sequence[str], generation: int, now: datetime) -> Condition:
    if not missing:
        message = f"the search runs every service that runs in {namespace}"
        return condition(SIMPLER, False, generation, now, "SameServices", message)
    message = (
        f"{namespace} runs {', '.join(missing)} beside the experiment's services: the search does without, and what it "
        "finds is validated beside them"
    )
    return condition(SIMPLER, True, generation, now, "ServicesMissing", message)


def _told(spec: ExperimentSpec, copy: _Copy) -> str:
    """What was copied, what it has lost, and where it runs with other values than the baseline's."""
    services = ", ".join(it.component for it in copy.stack.services)
    parts = [f"{services} of {copy.stack.namespace} as ControllerRevision {copy.ref}", *other_values(spec, copy.stack)]
    lost = [f"{it.component} {', '.join(it.lost)}" for it in copy.stack.services if it.lost]
    return "; ".join([*parts, *([f"without {'; '.join(lost)}"] if lost else [])])


def _generation(body: Object) -> int:
    return int(body["metadata"]["generation"])
