"""The summary as a person reads it at a glance."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from cotune_demo.summary import BrokenSummary, ProfileSummary, Summary, TrialSummary


def lines(summary: Summary) -> Iterator[str]:
    """The report, line by line."""
    yield ""
    yield summary.title
    yield "=" * len(summary.title)
    yield ""
    yield from _table(
        ("MEMORY", "WHISPER", "PHASE", "STT p95", "LLM p95", "KV TOKENS", "WER", "GPU", "FITNESS", ""),
        [_trial_row(it, summary) for it in sorted(summary.trials, key=_by_fitness)],
    )
    if winner := summary.winner:
        gain = f"fitness {winner.fitness:.3f}, baseline {winner.baseline_fitness:.3f}"
        yield f"winner:   {settings(winner.parameters)}  {gain}"
    if summary.profile:
        yield f"profile:  {_profile(summary.profile)}"
    yield (
        f"planner:  {summary.gpu_seconds:.0f} GPU-seconds in all, {summary.gpu_seconds_for_nothing:.0f} of them for "
        "candidates that it had said could not start (skipped unless probeSkipped asks for them)"
    )
    for broken in summary.broken:
        yield f"broken:   {_profile(broken.profile)}"
        yield f"          {_times(broken)}"
    yield f"uninvited namespace: condition {summary.uninvited.condition}; the API server says to the operator:"
    for refusal in summary.uninvited.refusals:
        yield f"          {refusal.attempt}: {refusal.answer[:140]}"
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
        ("judge.kvCache.tokens", "KV cache {:,.0f} tokens"),
        ("stt.wer", "WER {:.3f}"),
        ("gpu.freeMiB", "{:,.0f} MiB free"),
        ("gpu.utilization", "GPU {:.0%} busy"),
    )
    return ", ".join(text.format(metrics[name]) for name, text in wanted if name in metrics)


def _by_fitness(trial: TrialSummary) -> tuple[float, str]:
    return -(trial.fitness or 0.0), trial.name


def _trial_row(trial: TrialSummary, summary: Summary) -> tuple[str, ...]:
    def metric(name: str, text: str) -> str:
        return text.format(trial.metrics[name]) if name in trial.metrics else "-"

    note = trial.reason if trial.phase != "Succeeded" else ""
    if summary.winner and trial.parameters == summary.winner.parameters:
        note = "<- winner"
    return (
        trial.parameters.get("judgeMemory", "-"),
        trial.parameters.get("whisperModel", "-"),
        trial.phase,
        metric("stt.latency.p95", "{:.0f} ms"),
        metric("judge.latency.p95", "{:.0f} ms"),
        metric("judge.kvCache.tokens", "{:,.0f}"),
        metric("stt.wer", "{:.3f}"),
        metric("gpu.utilization", "{:.0%}"),
        f"{trial.fitness:.3f}" if trial.fitness is not None else "-",
        note,
    )


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
