"""What a run has shown, as data: `build/demo/summary.json`."""

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrialSummary(_Model):
    """One candidate, run once."""

    name: str
    parameters: Mapping[str, str]
    repeat: int
    phase: str
    reason: str
    message: str
    metrics: Mapping[str, float]
    """Metric name to value, in the units of the resources."""
    fitness: float | None
    predicted: str
    """`fits`, or the reason for which the planner expects it not to start; empty without a prediction."""
    started_at: datetime | None
    finished_at: datetime | None
    probe_pods: int
    """How many probe pods were seen for it: one, or the trial was run twice; none of a skipped one."""
    purpose: str = "Search"
    """`Search`, `Drift` or `Confirmation`."""


class RefusedSummary(_Model):
    """Candidates that the planner says cannot start, for one reason."""

    reason: str
    count: int
    skipped: int
    """Of them, those that were not run."""
    example: str
    """The first of them, with its figures."""


class PlanSummary(_Model):
    """What the planner said of the space, and where it erred."""

    candidates: int
    fitting: int
    refused: tuple[RefusedSummary, ...]
    wrong_fits: int
    wrong_does_not_fit: int
    gpu_seconds_saved: float | None
    """By skipping: skipped candidates times what a start holds the card for; None: no trial to estimate it from."""


class NothingFeasibleSummary(_Model):
    """The experiment whose space holds nothing that fits."""

    name: str
    phase: str
    reason: str
    """Of its Stalled condition."""
    message: str
    plan: PlanSummary | None
    trials: int
    pods: int
    """Those of its trials, whenever looked."""
    seconds: float
    """From `kubectl apply` to its end."""


class WinnerSummary(_Model):
    """The winner beside the baseline."""

    parameters: Mapping[str, str]
    fitness: float
    baseline_fitness: float


class StageSummary(_Model):
    """One stage of a rollout."""

    name: str
    phase: str
    message: str
    revision: str | None
    last_good_revision: str | None
    started_at: datetime | None
    finished_at: datetime | None


class ProfileSummary(_Model):
    """A profile and how far it came."""

    name: str
    changes: Mapping[str, str]
    """`component.VARIABLE` to the new value."""
    phase: str
    stages: tuple[StageSummary, ...]


class ValidatedSummary(_Model):
    """What became of one of the changes that a search proposed."""

    parameter: str
    value: str
    kept: bool
    reason: str
    message: str


class TargetExperimentSummary(_Model):
    """An experiment whose changes were validated on what runs in its target."""

    name: str
    phase: str
    conditions: Mapping[str, str]
    """Type to reason."""
    gpu_seconds: float
    """For which its trials held their cards, as its status says."""
    trials: tuple[TrialSummary, ...]
    validated: tuple[ValidatedSummary, ...]
    """Every change that the search proposed."""
    changes: Mapping[str, str]
    """Of its profile: `component.VARIABLE` to the new value; empty: there is none."""

    @property
    def run(self) -> tuple[TrialSummary, ...]:
        """Those of its trials that took a card."""
        return tuple(it for it in self.trials if it.phase != "Skipped")


class TargetSummary(_Model):
    """An experiment that is simpler than its target, and the same on a copy of the target and with the planner."""

    simpler: TargetExperimentSummary
    copied: TargetExperimentSummary
    profile: ProfileSummary | None
    """Of the simpler experiment."""
    values: Mapping[str, str]
    """Namespace to the size of Whisper that runs there in the end."""
    gpu_seconds_saved: float
    """By the copy and the planner."""


class BrokenSummary(_Model):
    """A deliberately broken profile."""

    profile: ProfileSummary
    failed_stage: str | None
    first_sign_at: datetime | None
    """When Kubernetes first showed a container of the stage that had ended with an error; whole seconds."""
    condition_at: datetime | None
    """When the profile became Degraded."""
    ready_at: datetime | None
    """When all pods of the stage were ready again."""
    generations_before: Mapping[str, int]
    """Deployment of production to generation."""
    generations_after: Mapping[str, int]
    values_before: Mapping[str, str]
    """Variable of production to value."""
    values_after: Mapping[str, str]
    is_production_ready: bool


class Refusal(_Model):
    """Something that the API server did not let the operator do."""

    attempt: str
    answer: str


class UninvitedSummary(_Model):
    """A namespace without a grant."""

    refusals: tuple[Refusal, ...]
    condition: str
    """Reason of the Stalled condition of a profile that names the namespace."""
    generation_before: int
    generation_after: int


class RecordsSummary(_Model):
    """The records of the trials, as `cotune verify` found them."""

    records: int
    recomputed: int
    """Figures that were computed again from raw histograms and samples."""
    resources: int
    """Trials and profiles that were compared with their records."""
    faults: tuple[str, ...]
    faults_when_edited: tuple[str, ...]
    """Kinds of what it found when one measurement of one trial was edited."""


class Check(_Model):
    """One thing that had to happen."""

    what: str
    holds: bool
    seen: str


class Summary(_Model):
    """One run of the demonstration."""

    title: str
    is_simulation: bool
    command: str
    started_at: datetime
    seconds: float
    """From a ready cluster with the images loaded to this summary; `set_up_seconds` comes before."""
    set_up_seconds: float
    kills: tuple[str, ...]
    """When the operator's pod was killed."""
    experiment_phase: str
    experiment_reason: str
    gpu_seconds: float
    """For which trials held the card."""
    plan: PlanSummary | None
    """None without a card: nothing is planned."""
    nothing_feasible: NothingFeasibleSummary | None
    """None without a card."""
    trials: tuple[TrialSummary, ...]
    winner: WinnerSummary | None
    profile: ProfileSummary | None
    target: TargetSummary | None
    """None where it was not told."""
    broken: tuple[BrokenSummary, ...]
    uninvited: UninvitedSummary | None
    """None where it was not tried."""
    records: RecordsSummary
    checks: tuple[Check, ...] = ()
