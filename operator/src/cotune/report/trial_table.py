"""One row for every trial, the best candidate's first."""

from collections.abc import Iterable
from dataclasses import dataclass

from cotune.report.candidates import CandidateSummary, Role
from cotune.report.resources import Experiment


@dataclass(frozen=True)
class TrialRow:
    """One trial."""

    name: str
    role: Role
    values: tuple[str, ...]
    """Of the parameters, in the experiment's order."""
    phase: str
    reason: str
    purpose: str
    repeat: int
    metrics: tuple[float | None, ...]
    """Of the objectives, in the experiment's order; None: not measured."""
    fitness: float | None
    seconds: float | None
    """From its start to its end; None: it has not ended, or never began."""


@dataclass(frozen=True)
class TrialTable:
    """All trials."""

    parameters: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[TrialRow, ...]


def trial_table(experiment: Experiment, candidates: Iterable[CandidateSummary]) -> TrialTable:
    """Trials of the same candidate stand together, in the order of their repeats."""
    parameters = tuple(it.name for it in experiment.spec.parameters)
    metrics = tuple(it.metric for it in experiment.spec.objectives)
    rows: list[TrialRow] = []
    for summary in candidates:
        for it in sorted(summary.trials, key=lambda trial: trial.spec.repeat):
            status = it.status
            ended = status.started_at is not None and status.finished_at is not None and not it.spec.skipped
            rows.append(
                TrialRow(
                    it.name,
                    summary.role,
                    tuple(it.candidate.values.get(name, "") for name in parameters),
                    str(status.phase),
                    status.reason,
                    str(it.spec.purpose),
                    it.spec.repeat,
                    tuple(it.measured.get(metric) for metric in metrics),
                    it.fitness,
                    (status.finished_at - status.started_at).total_seconds()
                    if ended and status.finished_at is not None and status.started_at is not None
                    else None,
                )
            )
    return TrialTable(parameters, metrics, tuple(rows))
