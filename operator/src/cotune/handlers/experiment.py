"""One pass over a GpuAllocationExperiment: look at its trials, start what comes next, name the winner."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from prometheus_client import Counter
from pydantic import ValidationError

from cotune.api.conditions import Condition, looked_at, with_condition
from cotune.api.experiment import ExperimentPhase, ExperimentSpec, ExperimentStatus, Noise, Outcome, SpaceSummary
from cotune.api.profile import ProfilePhase, ProfileStatus
from cotune.api.quiesce import QuiescePhase
from cotune.api.sharing import Sharing
from cotune.api.trial import Prediction, Purpose, TrialPhase, TrialSpec, TrialStatus
from cotune.cluster.events import Events
from cotune.cluster.kinds import EXPERIMENT, PROFILE, TRIAL
from cotune.cluster.nodes import nodes
from cotune.cluster.objects import AlreadyExistsError, ForbiddenError, Object, Objects, controller_reference
from cotune.cluster.stacks import NameTakenError
from cotune.experiments.observed import ObservedTrial
from cotune.experiments.partial_winner import Ground
from cotune.experiments.predictions import SpaceTooLargeError
from cotune.experiments.samples import too_few_requests
from cotune.experiments.step import LISTED_SKIPS, NOTHING_FEASIBLE, ExperimentStep, PlannedTrial, decide
from cotune.handlers.copies import Copies, CopyRefusedError
from cotune.handlers.plans import MadePlan, PlanningInProgressError, Plans
from cotune.handlers.quiesce_holders import is_in_progress
from cotune.handlers.quiesces import LABEL_EXPERIMENT, Gate, Quiesces, cut_short
from cotune.handlers.statuses import condition, status_of, write_status
from cotune.handlers.turns import Turns
from cotune.profiles.making import NamedProfile, make_profile
from cotune.search.space import Candidate, Space
from cotune.trials.placement import NO_SUITABLE_NODE, Placement, SharingModes, placements, sharing_modes
from cotune.trials.render import ANNOTATION_DIGEST

_SOON, _LATER = timedelta(seconds=1), timedelta(seconds=10)
_FINISHED = frozenset({ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED})


WRONG_PREDICTIONS = Counter(
    "cotune_wrong_predictions_total", "Trials of which the planner was wrong, by what it had said.", ["predicted"]
)
CANDIDATES_SKIPPED = Counter(
    "cotune_candidates_skipped_total", "Candidates of ended experiments that were not run, by reason.", ["reason"]
)
GPU_SECONDS_SAVED = Counter(
    "cotune_gpu_seconds_saved_total", "Estimate for ended experiments: skipped candidates times a failed start's time."
)


_TAKEN_BACK = frozenset({ProfilePhase.ROLLED_BACK, ProfilePhase.DEGRADED})


@dataclass(frozen=True)
class MadeProfile:
    """The winner's profile as it is now there."""

    profile: NamedProfile
    is_ended: bool = False
    """It was there before, and has been taken back: nothing will become of it by itself."""

    @property
    def reason(self) -> str:
        """As condition and event have it."""
        return "ProfileRolledBack" if self.is_ended else "ProfileMade"

    @property
    def message(self) -> str:
        """For a person."""
        if self.is_ended:
            return f"GpuProfile {self.profile.name} was there before and was taken back: delete it to try again"
        return f"GpuProfile {self.profile.name}"


@dataclass(frozen=True)
class ExperimentReconciler:
    """Reconciles experiments."""

    objects: Objects
    events: Events
    plans: Plans
    before_measuring: timedelta = timedelta(seconds=660)
    """How long a trial may take until it measures."""
    turns: Turns = field(default_factory=Turns)
    """Of the trials and rollouts that production must not be stopped or started under."""

    @property
    def quiesces(self) -> Quiesces:
        """Stops production for trials that need it out of the way."""
        return Quiesces(self.objects, self.events, self.before_measuring, self.turns)

    async def reconcile(self, body: Object, now: datetime) -> timedelta | None:
        """One pass over the experiment as it was just read; production that is stopped for it comes before all else."""
        status = ExperimentStatus.model_validate(status_of(body))
        if is_in_progress(body, status) and (again := await self.quiesces.go_on(body, status, now)) is not None:
            return again
        if "deletionTimestamp" in body["metadata"] or status.phase in _FINISHED:
            return None  # The garbage collector takes the trials of a deleted experiment.
        try:
            spec = ExperimentSpec.model_validate(body["spec"])
        except ValidationError as error:
            # What the API server cannot see: a pod template is opaque to it.
            return await self._stalled(body, status, "SpecInvalid", _first_error(error), now)
        digest = spec_digest(body)
        if status.spec_digest is None:
            return await self._begin(body, spec, status, digest, now)
        if status.spec_digest != digest:
            message = "the spec differs from what the trials run: apply it under a new name"
            return await self._stalled(body, status, "SpecChanged", message, now)
        is_planning = status.phase is ExperimentPhase.PLANNING
        if is_planning and (why := too_few_requests(body["metadata"]["name"], spec)) is not None:
            return await self._stalled(body, status, "WindowTooShort", why, now)
        try:
            run = await Copies(self.objects).in_place(body["metadata"]["namespace"], spec, status.stack_ref)
            placed = placements(await nodes(self.objects), run)
            of_baseline = placed[spec.baseline_sharing]
            if not of_baseline.nodes:
                return await self._stalled(body, status, NO_SUITABLE_NODE, of_baseline.why_none(), now)
            return await self._advance(body, spec, run, status, placed, now)
        except CopyRefusedError as error:
            return await self._stalled(body, status, error.reason, error.message, now)
        except ForbiddenError as error:
            return await self._stalled(body, status, "Forbidden", error.message, now)
        except NameTakenError as error:
            return await self._stalled(body, status, "NameTaken", str(error), now)
        except SpaceTooLargeError as error:
            return await self._stalled(body, status, "SpaceTooLarge", str(error), now)
        except PlanningInProgressError:
            return await self._planning(body, spec, status, now)

    async def _begin(
        self, body: Object, spec: ExperimentSpec, status: ExperimentStatus, digest: str, now: datetime
    ) -> timedelta:
        """Written before the first trial exists, so that no trial ever runs what nobody has recorded."""
        try:
            begun = await Copies(self.objects).begin(body, spec, status, now)
        except CopyRefusedError as error:
            return await self._stalled(body, status, error.reason, error.message, now)
        except ForbiddenError as error:
            return await self._stalled(body, status, "Forbidden", error.message, now)
        except NameTakenError as error:
            return await self._stalled(body, status, "NameTaken", str(error), now)
        generation = body["metadata"]["generation"]
        new = begun.model_copy(
            update={
                "phase": ExperimentPhase.PLANNING,
                "spec_digest": digest,
                "observed_generation": generation,
                "conditions": looked_at(begun.conditions, generation),
            }
        )
        await write_status(self.objects, EXPERIMENT, body, status, new)
        return timedelta()

    async def _advance(
        self,
        body: Object,
        spec: ExperimentSpec,
        run: ExperimentSpec,
        status: ExperimentStatus,
        placed: Mapping[Sharing | None, Placement],
        now: datetime,
    ) -> timedelta | None:
        """The next step.

        Args:
            body: the experiment as it was read.
            spec: its spec.
            run: the same with the stack that the trials of the search run.
            status: its status.
            placed: which nodes can run it, for each way of sharing the card.
            now: the time.
        """
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        found, modes = await self._trials(body), sharing_modes(run, placed)
        digest = f"{status.spec_digest or ''} {status.stack_ref or ''}"
        made = await self.plans.of(namespace, run, digest, found, modes)
        observed = [_observed(it, status.stack_ref) for it in found]
        cards = {node for it in placed.values() for node in it.nodes}
        ground = await self._ground(namespace, spec, status, found, modes)
        step = decide(name, spec, observed, len(cards), made.plan, ground)
        if _begins_to_validate(step, status, observed):
            # What runs in the target now is what the changes must hold on; nothing is started before that is recorded.
            if (stopped := _read_before_it_was_stopped(status)) is not None:
                await write_status(self.objects, EXPERIMENT, body, status, stopped)
                return timedelta()
            again = await Copies(self.objects).read_again(body, spec, status, now)
            await write_status(self.objects, EXPERIMENT, body, status, again)
            return timedelta()
        gate: Gate | None = None
        if spec.quiesce is not None:
            is_wanted = bool(step.start) or any(not it.phase.is_finished() and not it.is_skipped for it in observed)
            gate = await self.quiesces.gate(body, spec, status, spec.quiesce, is_wanted, observed, now)
            body, step = gate.body, step if gate.is_open else replace(step, start=())
        for planned in (*step.start, *step.record):
            await self._start(body, planned, status.stack_ref)
        source = _status_of(step.deployable.trial, found) if step.deployable is not None else None
        profile = await self._make_profile(namespace, name, spec, status, step, source)
        planned = _planned(body, spec, made, now)
        new = _status(body, status, step, profile, now, _summary(made, step), planned, _without_node(observed))
        new = new.model_copy(update={"conditions": _with_quarantine(body, new.conditions, observed, now)})
        if gate is not None:
            new = gate.told(new, now)
        if not await write_status(self.objects, EXPERIMENT, body, status, new):
            return _again(gate)  # Phases differ from the recorded one: a finished experiment never comes here.
        _count(status, new)
        if step.phase in _FINISHED:
            failed = step.phase is ExperimentPhase.FAILED
            await self.events.tell(body, step.reason, step.message, "Rank", now, warning=failed)
            if profile is not None:
                await self.events.tell(body, profile.reason, profile.message, "MakeProfile", now, profile.is_ended)
        return None if step.phase in _FINISHED and not is_in_progress(body, new) else _again(gate)

    async def _ground(
        self,
        namespace: str,
        spec: ExperimentSpec,
        status: ExperimentStatus,
        trials: Sequence[Object],
        modes: SharingModes,
    ) -> Ground | None:
        """On which stack changes are validated, where that is not the one of the search.

        Raises:
            CopyRefusedError: somebody has deleted the copy.
        """
        target = status.target
        if target is None or not target.read_for_validation or target.stack_ref in {None, status.stack_ref}:
            return None
        ref = str(target.stack_ref)
        run = await Copies(self.objects).in_place(namespace, spec, ref)
        made = await self.plans.of(namespace, run, f"{status.spec_digest} {ref}", trials, modes)
        return Ground(target.namespace, ref, made.plan, target.beside)

    async def _trials(self, body: Object) -> tuple[Object, ...]:
        labels = {LABEL_EXPERIMENT: body["metadata"]["name"]}
        found = await self.objects.list(TRIAL, body["metadata"]["namespace"], labels)
        return tuple(sorted((it for it in found if _is_owned(it, body)), key=_age))

    async def _start(self, experiment: Object, planned: PlannedTrial, stack_ref: str | None) -> None:
        trial = _trial(experiment, planned, planned.stack_ref or stack_ref)
        try:
            await self.objects.create(TRIAL, experiment["metadata"]["namespace"], trial)
        except AlreadyExistsError:
            # Created by a pass that died before it was told so, or seen late: the name says that it is the same.
            found = await self.objects.find(TRIAL, experiment["metadata"]["namespace"], planned.name)
            if found is not None and not _is_owned(found, experiment):
                raise NameTakenError(f"GpuTrial {planned.name} exists and is not this experiment's") from None

    async def _make_profile(
        self,
        namespace: str,
        name: str,
        spec: ExperimentSpec,
        status: ExperimentStatus,
        step: ExperimentStep,
        source: TrialStatus | None,
    ) -> MadeProfile | None:
        """The profile of what is deployable; `source` is the status of the trial that it was first run in."""
        if step.deployable is None or source is None or status.spec_digest is None:
            return None
        candidate, trial = step.deployable.candidate, step.deployable.trial
        record = source.artifact.digest if source.artifact is not None else None
        starts = _starts(spec, source)
        profile = make_profile(spec, name, namespace, candidate, trial, status.spec_digest, record, starts)
        if profile is None:
            return None
        body: Object = {
            "apiVersion": PROFILE.api_version,
            "kind": PROFILE.name,
            "metadata": {"name": profile.name, "namespace": namespace, "labels": {LABEL_EXPERIMENT: name}},
            "spec": profile.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        try:
            await self.objects.create(PROFILE, namespace, body)
        except AlreadyExistsError:
            found = await self.objects.find(PROFILE, namespace, profile.name)
            if found is not None and found["spec"]["changes"] != body["spec"]["changes"]:
                raise NameTakenError(f"GpuProfile {profile.name} exists and makes other changes") from None
            # The name is the hash of the changes: an earlier pass made it, or an experiment with the same winner.
            phase = ProfileStatus.model_validate(status_of(found)).phase if found is not None else None
            return MadeProfile(profile, is_ended=phase in _TAKEN_BACK)
        return MadeProfile(profile)

    async def _planning(self, body: Object, spec: ExperimentSpec, status: ExperimentStatus, now: datetime) -> timedelta:
        """A plan in the making: nothing is started before it is there."""
        message = f"{len(Space(spec.parameters)):,} candidates are being planned"
        generation = body["metadata"]["generation"]
        progressing = condition("Progressing", True, generation, now, "PlanningSpace", message)
        conditions = looked_at(with_condition(status.conditions, progressing), generation)
        new = status.model_copy(update={"conditions": conditions, "observed_generation": generation})
        await write_status(self.objects, EXPERIMENT, body, status, new)
        return _SOON

    async def _stalled(
        self, body: Object, status: ExperimentStatus, reason: str, message: str, now: datetime
    ) -> timedelta:
        generation = body["metadata"]["generation"]
        conditions = status.conditions
        for type_, holds in (("Progressing", False), ("Ready", False), ("Stalled", True)):
            conditions = with_condition(conditions, condition(type_, holds, generation, now, reason, message))
        conditions = looked_at(conditions, generation)
        quiesce = cut_short(status.quiesce, reason, message, now)
        update = {"conditions": conditions, "observed_generation": generation, "quiesce": quiesce}
        if await write_status(self.objects, EXPERIMENT, body, status, status.model_copy(update=update)):
            await self.events.tell(body, reason, message, "Plan", now, warning=True)
        return _LATER if quiesce == status.quiesce else timedelta()


def _again(gate: Gate | None) -> timedelta:
    """When to look again: nothing hurries while trials wait for a window."""
    return _LATER if gate is not None and gate.waiting is not None else _SOON


def _read_before_it_was_stopped(status: ExperimentStatus) -> ExperimentStatus | None:
    """The status with the copy that was made of the target before its workloads were stopped; None: they run."""
    target, quiesce = status.target, status.quiesce
    if target is None or quiesce is None or quiesce.phase is not QuiescePhase.QUIESCED:
        return None
    if quiesce.namespace != target.namespace:
        return None
    return status.model_copy(update={"target": target.model_copy(update={"read_for_validation": True})})


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    path = "".join(f"[{it}]" if isinstance(it, int) else f".{it}" for it in first["loc"])
    return f"spec{path}: {first['msg']}"


def spec_digest(body: Object) -> str:
    """The digest of an experiment's spec as the API server has it.

    Raises:
        ValidationError: it is none.
    """
    return ExperimentSpec.model_validate(body["spec"]).digest()


def _begins_to_validate(step: ExperimentStep, status: ExperimentStatus, trials: Sequence[ObservedTrial]) -> bool:
    """Whether the target is to be looked at again; validation that has begun goes on as it began."""
    validates = step.phase is ExperimentPhase.VALIDATING or step.validation is not None
    is_read = status.target is not None and status.target.read_for_validation
    return validates and not is_read and all(it.purpose is not Purpose.VALIDATION for it in trials)


def _observed(body: Object, stack_ref: str | None) -> ObservedTrial:
    spec = TrialSpec.model_validate(body["spec"])
    status = TrialStatus.model_validate(status_of(body))
    return ObservedTrial(
        name=body["metadata"]["name"],
        candidate=Candidate(tuple((it.name, it.value) for it in spec.candidate)),
        repeat=spec.repeat,
        phase=status.phase,
        is_judged=status.phase is not TrialPhase.SUCCEEDED or any(it.type == "Feasible" for it in status.conditions),
        fitness=float(status.fitness) if status.fitness is not None else None,
        reason=status.reason,
        message=status.message,
        prediction=spec.prediction,
        is_skipped=spec.skipped,
        seconds=_seconds(spec, status),
        purpose=spec.purpose,
        series=spec.series,
        is_elsewhere=spec.stack_ref != stack_ref,
        started=status.started_at.timestamp() if status.started_at is not None else None,
        measurements={it.metric: float(it.value) for it in status.measurements},
    )


def _status_of(trial: str, trials: Sequence[Object]) -> TrialStatus:
    found = next(it for it in trials if it["metadata"]["name"] == trial)
    return TrialStatus.model_validate(status_of(found))


def _starts(spec: ExperimentSpec, status: TrialStatus) -> dict[str, float]:
    """Component to the seconds that its start took, where that was measured."""
    measured = {it.metric: float(it.value) for it in status.measurements}
    names = [it.name for it in spec.stack.components]
    return {name: measured[metric] for name in names if (metric := f"{name}.startup") in measured}


def _seconds(spec: TrialSpec, status: TrialStatus) -> float | None:
    if spec.skipped or status.node is None or status.started_at is None or status.finished_at is None:
        return None
    return (status.finished_at - status.started_at).total_seconds()


def _is_owned(trial: Object, experiment: Object) -> bool:
    uid = experiment["metadata"]["uid"]
    return any(it["uid"] == uid for it in trial["metadata"].get("ownerReferences", ()))


def _age(trial: Object) -> tuple[str, str]:
    return trial["metadata"]["creationTimestamp"], trial["metadata"]["name"]


def _trial(experiment: Object, planned: PlannedTrial, stack_ref: str | None) -> Object:
    metadata = experiment["metadata"]
    return {
        "apiVersion": TRIAL.api_version,
        "kind": TRIAL.name,
        "metadata": {
            "name": planned.name,
            "namespace": metadata["namespace"],
            "labels": {LABEL_EXPERIMENT: metadata["name"]},
            "annotations": {ANNOTATION_DIGEST: spec_digest(experiment)},
            "ownerReferences": [controller_reference(EXPERIMENT, experiment)],
        },
        "spec": {
            "experiment": metadata["name"],
            "candidate": [{"name": name, "value": value} for name, value in planned.candidate.assignments],
            "repeat": planned.repeat,
            "skipped": planned.is_skipped,
            "purpose": str(planned.purpose),
            "series": planned.series,
            **({"stackRef": stack_ref} if stack_ref is not None else {}),
            **({"prediction": _as_json(planned.prediction)} if planned.prediction is not None else {}),
        },
    }


def _as_json(prediction: Prediction) -> Object:
    return prediction.model_dump(mode="json", by_alias=True, exclude_none=True)


def _planned(body: Object, spec: ExperimentSpec, made: MadePlan, now: datetime) -> Condition:
    """What the planner says, in one line: `status.plan` and the trials have the rest."""
    generation = body["metadata"]["generation"]
    plan = made.plan.summary
    if plan is None:
        message = made.why_not or "no component says what it holds on the card, or there is no card"
        if made.plan.without_node:
            message += f"; no node is prepared for {made.plan.without_node} candidates"
        return condition("Planned", False, generation, now, "NotPlanned", message)
    message = f"{plan.fitting} of {plan.candidates} candidates fit on the card"
    if plan.refused:
        reasons = ", ".join(it.reason for it in plan.refused)
        message += (
            f"; {plan.candidates - plan.fitting} cannot start: {reasons}; probeSkipped is {spec.planning.probe_skipped}"
        )
    if made.plan.skipped > LISTED_SKIPS:
        message += f"; {made.plan.skipped} are skipped: so many are counted in status.plan, and have no trials"
    if plan.start_order:
        message += f"; more of them fit when each waits (dependsOn) for the one before: {', '.join(plan.start_order)}"
    return condition("Planned", True, generation, now, "SpacePlanned", message)


def _with_quarantine(
    body: Object, conditions: Sequence[Condition], trials: Sequence[ObservedTrial], now: datetime
) -> tuple[Condition, ...]:
    """Which nodes a trial would run on, but for somebody else who uses their cards."""
    waiting = [it for it in trials if not it.phase.is_finished() and it.reason == "NodeQuarantined"]
    generation = body["metadata"]["generation"]
    if waiting:
        why = waiting[0].message
        return with_condition(conditions, condition("Quarantined", True, generation, now, "NodeQuarantined", why))
    if any(it.type == "Quarantined" for it in conditions):
        over = condition("Quarantined", False, generation, now, "NoNodeQuarantined", "no trial waits for a node")
        return with_condition(conditions, over)
    return tuple(conditions)


def _without_node(trials: Sequence[ObservedTrial]) -> str | None:
    """Why a trial that the experiment cannot do without waits for a node that is prepared for it; None: none does."""
    waiting = (it for it in trials if not it.phase.is_finished() and it.reason == NO_SUITABLE_NODE)
    return next((f"{it.name}: {it.message}" for it in waiting), None)


def _summary(made: MadePlan, step: ExperimentStep) -> SpaceSummary | None:
    plan = made.plan.summary
    if plan is None:
        return None
    refused = plan.refused
    if step.reason == NOTHING_FEASIBLE:  # Then not even the baseline is run.
        refused = tuple(it.model_copy(update={"skipped": it.count}) for it in refused)
    return plan.model_copy(update={"learned_from": made.learned_from, "refused": refused})


def _count(old: ExperimentStatus, new: ExperimentStatus) -> None:
    """For Prometheus, after the write: a pass that dies before it is repeated, and counts then."""
    before, after = old.trials, new.trials
    WRONG_PREDICTIONS.labels("Fits").inc(max(after.wrong_fits - before.wrong_fits, 0))
    WRONG_PREDICTIONS.labels("DoesNotFit").inc(max(after.wrong_does_not_fit - before.wrong_does_not_fit, 0))
    if new.phase not in _FINISHED or new.plan is None or not after.skipped:
        return
    for it in new.plan.refused:
        CANDIDATES_SKIPPED.labels(it.reason).inc(it.skipped)
    GPU_SECONDS_SAVED.inc(float(new.gpu_seconds_saved or 0))


def _of_the_figures(step: ExperimentStep, generation: int, now: datetime) -> Iterator[Condition]:
    """What is known of a gain, and of the ground it stands on."""
    if step.outcome is not None:
        holds = {Outcome.BETTER: True, Outcome.NOT_BETTER: False, Outcome.CANNOT_TELL: None}[step.outcome]
        yield condition("Better", holds, generation, now, str(step.outcome), step.message)
    if step.noise is not None and step.noise.drift is not None:
        yield _steady(step.noise, generation, now)


def _steady(noise: Noise, generation: int, now: datetime) -> Condition:
    drift = noise.drift
    if drift is None:
        raise ValueError("without a drift nothing can be said of it")
    message = f"the baseline's fitness changed by {drift.value} ({drift.lower} to {drift.upper}) from first to last run"
    if float(drift.lower) <= 0 <= float(drift.upper):
        return condition("Steady", True, generation, now, "NoDriftSeen", message)
    return condition("Steady", False, generation, now, "BaselineDrifts", message)


def _status(
    body: Object,
    old: ExperimentStatus,
    step: ExperimentStep,
    made: MadeProfile | None,
    now: datetime,
    plan: SpaceSummary | None,
    planned: Condition,
    without_node: str | None,
) -> ExperimentStatus:
    generation = body["metadata"]["generation"]
    finished = step.phase in _FINISHED
    conditions = old.conditions
    stalled = condition("Stalled", step.phase is ExperimentPhase.FAILED, generation, now, step.reason, step.message)
    if without_node is not None and not finished:
        stalled = condition("Stalled", True, generation, now, NO_SUITABLE_NODE, without_node)
    for it in (
        planned,
        condition("Progressing", not finished, generation, now, step.reason, step.message),
        condition("Ready", step.phase is ExperimentPhase.SUCCEEDED, generation, now, step.reason, step.message),
        stalled,
        *_of_the_figures(step, generation, now),
    ):
        conditions = with_condition(conditions, it)
    if made is not None:
        conditions = with_condition(
            conditions, condition("ProfileMade", not made.is_ended, generation, now, made.reason, made.message)
        )
    return ExperimentStatus(
        phase=step.phase,
        observed_generation=generation,
        spec_digest=old.spec_digest,
        stack_ref=old.stack_ref,
        target=old.target,
        trials=step.counts,
        plan=plan,
        gpu_seconds_saved=f"{step.gpu_seconds_saved:.1f}" if step.gpu_seconds_saved is not None else None,
        gpu_seconds=f"{step.gpu_seconds:.1f}" if step.gpu_seconds is not None else None,
        winner=step.winner,
        verdict=step.verdict,
        validation=step.validation,
        noise=step.noise,
        quiesce=old.quiesce,
        profile=made.profile.name if made is not None else None,
        conditions=looked_at(conditions, generation),
    )
