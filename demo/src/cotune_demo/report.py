"""The summary as a person reads it at a glance."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from cotune_demo.summary import (
    BrokenSummary,
    PlanSummary,
    ProfileSummary,
    Summary,
    TargetExperimentSummary,
    TargetSummary,
    TrialSummary,
)


def lines(summary: Summary) -> Iterator[str]:
    """The report, line by line."""
    yield ""
    yield summary.title
    yield "=" * len(summary.title)
    yield ""
    yield from _trials(summary)
    if winner := summary.winner:
        gain = f"fitness {winner.fitness:.3f}, baseline {winner.baseline_fitness:.3f}"
        yield f"winner:   {settings(winner.parameters)}  {gain}"
    if summary.profile:
        yield f"profile:  {_profile(summary.profile)}"
    if summary.plan:
        yield from _plan(summary.plan, summary.gpu_seconds)
    if hopeless := summary.nothing_feasible:
        end = f"{hopeless.phase} after {hopeless.seconds:.1f} s, {hopeless.reason}, {hopeless.pods} pods"
        yield f"nothing:  {hopeless.name}: {end}"
        yield f"          {hopeless.message[:160]}"
    if target := summary.target:
        yield from _target(target)
    for broken in summary.broken:
        yield f"broken:   {_profile(broken.profile)}"
        yield f"          {_times(broken)}"
    if uninvited := summary.uninvited:
        yield f"uninvited namespace: condition {uninvited.condition}; the API server says to the operator:"
        for refusal in uninvited.refusals:
            yield f"          {refusal.attempt}: {refusal.answer[:140]}"
    records = summary.records
    yield f"records:  {records.records}, {records.recomputed} figures computed again, {len(records.faults)} faults"
    yield from (f"          {it[:140]}" for it in records.faults[:5])
    for kill in summary.kills:
        yield f"killed:   {kill}"
    yield ""
    for check in summary.checks:
        yield f"  {'ok  ' if check.holds else 'FAIL'}  {check.what}" + ("" if check.holds else f" (seen: {check.seen})")
    yield ""
    yield f"{summary.seconds:.0f} s, after {summary.set_up_seconds:.0f} s of set-up"


def settings(parameters: Mapping[str, str]) -> str:
    """A candidate in one line."""
    return " ".join(f"{name}={value}" for name, value in parameters.items())


def figures(metrics: Mapping[str, float]) -> str:
    """The figures of a trial that one looks at first."""
    wanted = (
        ("stt.latency.p95", "stt p95 {:.0f} ms"),
        ("judge.latency.p95", "judge p95 {:.0f} ms"),
        ("llm.latency.p95", "LLM p95 {:.0f} ms"),
        ("judge.kvCache.tokens", "KV cache {:,.0f} tokens"),
        ("llm.kvCache.tokens", "KV cache {:,.0f} tokens"),
        ("stt.wer", "WER {:.3f}"),
        ("gpu.freeMiB", "{:,.0f} MiB free"),
        ("gpu.utilization", "GPU {:.0%} busy"),
    )
    return ", ".join(text.format(metrics[name]) for name, text in wanted if name in metrics)


def _by_fitness(trial: TrialSummary) -> tuple[float, str]:
    return -(trial.fitness or 0.0), trial.name


_COLUMNS = (
    ("STT p95", "stt.latency.p95", "{:.0f} ms"),
    ("LLM p95", "judge.latency.p95", "{:.0f} ms"),
    ("LLM p95", "llm.latency.p95", "{:.0f} ms"),
    ("KV TOKENS", "judge.kvCache.tokens", "{:,.0f}"),
    ("KV TOKENS", "llm.kvCache.tokens", "{:,.0f}"),
    ("WER", "stt.wer", "{:.3f}"),
    ("GPU", "gpu.utilization", "{:.0%}"),
)
"""Head, metric and format; those that no trial has are left out."""


def _trials(summary: Summary) -> Iterator[str]:
    names = list(dict.fromkeys(name for it in summary.trials for name in it.parameters))
    columns = [it for it in _COLUMNS if any(it[1] in trial.metrics for trial in summary.trials)]

    def row(trial: TrialSummary) -> tuple[str, ...]:
        note = trial.reason if trial.phase != "Succeeded" else ""
        if summary.winner and trial.parameters == summary.winner.parameters:
            note = "<- winner"
        figures = [text.format(trial.metrics[it]) if it in trial.metrics else "-" for _, it, text in columns]
        fitness = f"{trial.fitness:.3f}" if trial.fitness is not None else "-"
        return (*(trial.parameters.get(it, "-") for it in names), trial.phase, *figures, fitness, note)

    head = (*names, "PHASE", *(it[0] for it in columns), "FITNESS", "")
    yield from _table(head, [row(it) for it in sorted(summary.trials, key=_by_fitness)])


def _plan(plan: PlanSummary, gpu_seconds: float) -> Iterator[str]:
    saved = "?" if plan.gpu_seconds_saved is None else f"{plan.gpu_seconds_saved:.0f}"
    yield (
        f"planner:  {plan.fitting} of {plan.candidates} candidates fit; {gpu_seconds:.0f} GPU-seconds used, "
        f"about {saved} saved by skipping; "
        f"wrong 'fits' {plan.wrong_fits}, wrong 'does not fit' {plan.wrong_does_not_fit}"
    )
    for it in plan.refused:
        yield f"          {it.reason}: {it.count}, of them skipped {it.skipped}; {it.example[:140]}"


def _target(target: TargetSummary) -> Iterator[str]:
    simpler, copied = target.simpler, target.copied
    warning = f"SimplerThanTarget: {simpler.conditions.get('SimplerThanTarget', '-')}"
    yield f"target:   {simpler.name}, without what else runs in staging ({warning}): {_cost(simpler)}"
    for it in simpler.validated:
        words = "kept" if it.kept else f"left out: {it.reason}: {it.message[:140]}"
        yield f"          {it.parameter}={it.value}: {words}"
    if target.profile:
        yield f"          {_profile(target.profile)}"
    yield f"          {copied.name}, on a copy of staging and with the planner: {_cost(copied)}"
    yield f"          its profile: {settings(copied.changes)}; {target.gpu_seconds_saved:.0f} GPU-seconds saved"


def _cost(experiment: TargetExperimentSummary) -> str:
    return f"{len(experiment.run)} trials run, {experiment.gpu_seconds:.0f} GPU-seconds"


def _profile(profile: ProfileSummary) -> str:
    stages = ", ".join(f"{it.name} {it.phase}{_took(it.started_at, it.finished_at)}" for it in profile.stages)
    return f"{profile.name} ({settings(profile.changes)}): {profile.phase}: {stages}"


def _took(start: datetime | None, end: datetime | None) -> str:
    return f" in {(end - start).total_seconds():.1f} s" if start and end else ""


def _times(broken: BrokenSummary) -> str:
    reason = next((it.message for it in broken.profile.stages if it.name == broken.failed_stage), "")

    def after(moment: datetime | None) -> str:
        if moment is None or broken.first_sign_at is None:
            return "?"
        return f"{max((moment - broken.first_sign_at).total_seconds(), 0):.1f} s"

    return (
        f"first sign to condition {after(broken.condition_at)}, to all pods ready again {after(broken.ready_at)}: "
        f"{reason[:160]}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    everything = [head, *rows]
    widths = [max(len(row[column]) for row in everything) for column in range(len(head))]
    for row in everything:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
