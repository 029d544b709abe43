"""The whole report of one experiment, in the order in which a person reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cotune.api.experiment import Outcome
from cotune.api.trial import TrialPhase
from cotune.report.candidates import Role, summaries
from cotune.report.card_memory import CardMemory, card_memory
from cotune.report.comparison import Comparison, comparison, confirming
from cotune.report.endings import Ending, Skipped, endings, skipped
from cotune.report.interference import InterferenceMatrix, interference_matrix
from cotune.report.latencies import LatencyFigure, latency_figures
from cotune.report.parallel import ParallelCoordinates, parallel_coordinates
from cotune.report.pareto import ParetoFront, pareto_front
from cotune.report.raw import RawResults
from cotune.report.request import Request, request
from cotune.report.resources import Experiment, Trial
from cotune.report.rollout import RolloutGuide, rollout_guide
from cotune.report.trial_table import TrialTable, trial_table
from cotune.report.validation import Validation, validation
from cotune.report.verdict import Verdict, verdict


@dataclass(frozen=True)
class Report:
    """What the page shows. What is not known is None or empty, and is said to be."""

    name: str
    namespace: str
    made_at: datetime
    phase: str
    trials: int
    spec_digest: str | None
    verdict: Verdict
    request: Request
    comparison: Comparison | None
    validation: Validation | None
    pareto: ParetoFront | None
    parallel: ParallelCoordinates | None
    table: TrialTable
    latencies: tuple[LatencyFigure, ...]
    card_memory: CardMemory | None
    interference: tuple[InterferenceMatrix, ...]
    skipped: Skipped
    failed: tuple[Ending, ...]
    invalid: tuple[Ending, ...]
    rollout: RolloutGuide
    sides: Mapping[Role, str]
    """What the two that are compared are called: a challenger that is not better is no winner."""
    raw_runs: int
    """Of the runs that are compared, those whose raw result was found."""
    compared_runs: int


def report(experiment: Experiment, raw: RawResults, now: datetime) -> Report:
    """Everything that the resources and the raw results say.

    Raises:
        RawResultError: a raw result is damaged.
    """
    candidates = summaries(experiment)
    answer = verdict(experiment)
    runs = _compared(experiment)
    found = {
        role: [(it, result) for it in trials if (result := raw.of(it)) is not None] for role, trials in runs.items()
    }
    return Report(
        name=experiment.name,
        namespace=experiment.namespace,
        made_at=now,
        phase=str(experiment.status.phase),
        trials=len(experiment.trials),
        spec_digest=experiment.status.spec_digest,
        verdict=answer,
        request=request(experiment),
        comparison=comparison(experiment),
        validation=validation(experiment),
        pareto=pareto_front(experiment, candidates),
        parallel=parallel_coordinates(experiment, candidates),
        table=trial_table(experiment, candidates),
        latencies=latency_figures({role: [result for _, result in it] for role, it in found.items()}),
        card_memory=card_memory(found),
        interference=_interference(runs),
        skipped=skipped(experiment),
        failed=endings(experiment, TrialPhase.FAILED),
        invalid=endings(experiment, TrialPhase.INVALID),
        rollout=rollout_guide(experiment, answer.outcome),
        sides={
            Role.BASELINE: "baseline",
            Role.CHALLENGER: "winner" if answer.outcome is Outcome.BETTER else "challenger",
        },
        raw_runs=sum(len(it) for it in found.values()),
        compared_runs=sum(len(it) for it in runs.values()),
    )


def _compared(experiment: Experiment) -> Mapping[Role, tuple[Trial, ...]]:
    """The runs of both sides: the confirming ones, and without them what the search has measured."""
    sides = {Role.BASELINE: experiment.baseline, Role.CHALLENGER: experiment.challenger}
    return {
        role: confirming(experiment, candidate)
        or tuple(
            it for it in experiment.trials if it.candidate == candidate and it.status.phase is TrialPhase.SUCCEEDED
        )
        for role, candidate in sides.items()
        if candidate is not None
    }


def _interference(runs: Mapping[Role, Sequence[Trial]]) -> tuple[InterferenceMatrix, ...]:
    """Of each side the first run that has one."""
    found: list[InterferenceMatrix] = []
    for role, trials in runs.items():
        matrices = (interference_matrix(role, it.name, it.status.interference) for it in trials)
        found += [it for it in matrices if it is not None][:1]
    return tuple(found)
