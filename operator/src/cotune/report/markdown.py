"""The same report as GitHub-flavoured Markdown: tables, no pictures."""

import re
from collections.abc import Iterator, Mapping, Sequence

from cotune.fitness.bootstrap import Interval
from cotune.report.candidates import Role
from cotune.report.comparison import Comparison, Effect, KeptBound
from cotune.report.endings import Ending
from cotune.report.html.pictures import no_raw_data
from cotune.report.interference import InterferenceMatrix, Slowdown
from cotune.report.report import Report
from cotune.report.request import Row
from cotune.report.units import change, figure, percent, quantity, share, signed
from cotune.report.validation import Validation

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#])")


def as_markdown(report: Report) -> str:
    """The whole page."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {_text(f'{report.namespace}/{report.name}')}: {report.verdict.label}"
    yield from ("", f"**{_text(report.verdict.sentence)}**")
    for it in report.verdict.notes:
        yield from ("", f"> {_text(it)}")
    for title, section in (
        ("What was asked", _request),
        (f"{report.sides[Role.CHALLENGER].capitalize()} against baseline", _comparison),
        ("Pareto front", _pareto),
        ("Parameters and fitness", _parallel),
        ("Trials", _trials),
        ("Latencies", _latencies),
        ("Card memory", _memory),
        ("Interference", _interference),
        ("Skipped, and why", _skipped),
        ("Invalid and failed trials", _endings),
        ("Roll out, approve, roll back", _rollout),
    ):
        yield from ("", f"## {title}", "")
        yield from section(report)
    made = f"Made {report.made_at:%Y-%m-%d %H:%M} UTC from {report.trials:,} trials"
    raw = f"with the raw results of {report.raw_runs} of {report.compared_runs} compared runs."
    yield from ("", f"{made}, {raw}" + (f" What was run: `{report.spec_digest}`." if report.spec_digest else ""))


def _request(report: Report) -> Iterator[str]:
    asked = report.request
    yield _text(f"Card: {asked.card}. Search: {asked.search}. Window: {asked.window}.")
    yield from _rows(("parameter", "bound to", "values", "today"), asked.parameters)
    yield from _rows(("service", "arrivals", "requests"), asked.streams)
    yield from _rows(("objective", "goal", "weight"), asked.objectives)
    yield from _rows(("constraint", "bound"), asked.constraints)
    yield from _rows(("service", "protocol", "image", "memory"), asked.components)


def _comparison(report: Report) -> Iterator[str]:
    found = report.comparison
    if found is None:
        yield "No candidate was run again beside the baseline, so nothing can be said of a difference."
        return
    yield (
        f"Means of {found.repeats} fresh runs of the candidate and {found.baseline_repeats} of the baseline; intervals "
        f"at {percent(found.confidence)}."
    )
    side = report.sides[Role.CHALLENGER]
    settings = [
        (it.name, it.baseline, it.candidate if it.is_changed else f"{it.candidate} (the same)") for it in found.settings
    ]
    yield from _table(("parameter", "baseline", side), settings)
    yield from _table(
        ("objective", "weight", "baseline", side, "change", "interval", ""), [_effect(it) for it in found.effects]
    )
    yield from _validation(report.validation)
    yield from _bounds(found, side)
    others = [(it.metric, figure(it.metric, it.baseline), figure(it.metric, it.candidate)) for it in found.others]
    yield from _table(("further metric", "baseline", side), others)


def _effect(it: Effect) -> tuple[str, ...]:
    if it.change is None:
        said, bounds = "", "too few runs to say"
    elif (relative := it.relative) is not None:
        said, bounds = share(relative.estimate), f"{share(relative.lower)} to {share(relative.upper)}"
    else:
        said = change(it.metric, it.change.estimate)
        bounds = f"{change(it.metric, it.change.lower)} to {change(it.metric, it.change.upper)}"
    was, now = figure(it.metric, it.baseline), figure(it.metric, it.candidate)
    return it.metric, percent(it.weight), was, now, said, bounds, str(it.direction)


def _validation(found: Validation | None) -> Iterator[str]:
    if found is None:
        return
    rows = [
        (it.name, "kept" if it.is_kept else "left out", _gain(it.gain), it.reason, it.message) for it in found.changes
    ]
    if len(rows) > 1:
        beyond = f"{signed(found.interaction)} beyond the sum" if found.interaction is not None else ""
        rows.append(("what is kept, together", "", _gain(found.gain), "", beyond))
    yield from _table(("change alone", "in the profile", "gain in fitness", "reason", ""), rows)


def _gain(gain: Interval | None) -> str:
    if gain is None:
        return "not measured"
    return f"{signed(gain.estimate)} ({signed(gain.lower)} to {signed(gain.upper)})"


def _bounds(found: Comparison, side: str) -> Iterator[str]:
    rows = [
        (it.metric, it.bound, _side(it, it.baseline, it.baseline_keeps), _side(it, it.candidate, it.candidate_keeps))
        for it in found.bounds
    ]
    yield from _table(("constraint", "bound", "baseline", side), rows)


def _side(bound: KeptBound, span: tuple[float, float] | None, keeps: bool) -> str:
    said = "not measured in all runs"
    if span is not None:
        low, high = (figure(bound.metric, it) for it in span)
        said = low if low == high else f"{low} to {high}"
    return f"{said}, {'kept' if keeps else 'broken'}"


def _pareto(report: Report) -> Iterator[str]:
    found = report.pareto
    if found is None:
        yield "Fewer than two objectives were measured, so there is no front."
        return
    x, y = found.x.metric, found.y.metric
    yield f"Of {len(found.points)} measured candidates these are beaten by no other in both:"
    rows = [(it.name, str(it.role), figure(x, it.x), figure(y, it.y), str(it.runs)) for it in found.front]
    yield from _table(("candidate", "", x, y, "runs"), rows)


def _parallel(report: Report) -> Iterator[str]:
    found = report.parallel
    if found is None:
        yield "There is no trial yet."
        return
    rows = [(it.name, str(it.role), _fitness(it.fitness) or str(it.standing)) for it in found.lines]
    yield from _table(("candidate", "", "fitness"), rows)
    if found.left_out:
        yield from ("", f"{found.left_out:,} more are not shown.")


def _trials(report: Report) -> Iterator[str]:
    found = report.table
    if not found.rows:
        yield "There is no trial yet."
        return
    rows = [
        (
            it.name,
            *it.values,
            it.phase,
            it.reason,
            it.purpose,
            str(it.repeat),
            *(
                figure(metric, value) if value is not None else "–"
                for metric, value in zip(found.metrics, it.metrics, strict=True)
            ),
            _fitness(it.fitness) or "–",
        )
        for it in found.rows
    ]
    yield from _table(
        ("trial", *found.parameters, "phase", "reason", "purpose", "repeat", *found.metrics, "fitness"), rows
    )


def _latencies(report: Report) -> Iterator[str]:
    if not report.latencies:
        yield no_raw_data(report, "latency histograms")
        return
    rows = [
        (
            f"{figure_.component}: {figure_.quantity}",
            report.sides[it.role],
            *(quantity(value, "ms") for value in (found.p50, found.p95, found.p99)),
            f"{found.samples:,}",
        )
        for figure_ in report.latencies
        for it in figure_.curves
        for found in (it.distribution.percentiles,)
    ]
    yield from _table(("what", "side", "p50", "p95", "p99", "requests"), rows)


def _memory(report: Report) -> Iterator[str]:
    if report.card_memory is None:
        yield no_raw_data(report, "readings of the card")
        return
    rows: list[tuple[str, ...]] = []
    for it in report.card_memory.traces:
        used = [value for _, value in it.points if value is not None]
        rows.append((it.trial, report.sides[it.role], quantity(min(used), "MiB"), quantity(max(used), "MiB")))
    yield from _table(("run", "side", "least used", "most used"), rows)
    if report.card_memory.total_mib is not None:
        yield from ("", f"The card has {quantity(report.card_memory.total_mib, 'MiB')}.")


def _interference(report: Report) -> Iterator[str]:
    if not report.interference:
        yield "Interference was not measured: the experiment did not ask for it, or the trials do not have it."
    for matrix in report.interference:
        yield from _matrix(matrix, report.sides)


def _matrix(matrix: InterferenceMatrix, sides: Mapping[Role, str]) -> Iterator[str]:
    rows = [
        (name, *(_slowdown(it) for it in cells)) for name, cells in zip(matrix.components, matrix.cells, strict=True)
    ]
    heads = (*(f"beside {it}" for it in matrix.components), "all loaded")
    yield from _table((f"{sides[matrix.role]}: p95 of", *heads), rows)


def _slowdown(it: Slowdown) -> str:
    if it.p95_ms is None:
        return "–"
    if it.is_alone:
        return f"{quantity(it.p95_ms, 'ms')} alone"
    return quantity(it.p95_ms, "ms") + (f" (×{it.ratio:.2f})" if it.ratio is not None else "")


def _skipped(report: Report) -> Iterator[str]:
    found = report.skipped
    if not found.is_planned:
        yield "The planner had no word on the candidates, so none was skipped."
    elif not found.reasons:
        yield "All candidates fit by arithmetic: none was skipped."
    rows = [(it.reason, str(it.count), str(it.skipped), it.example) for it in found.reasons]
    yield from _table(("reason", "cannot start", "not run", "for example"), rows)
    yield from _table(("candidate", "reason", "why"), [(it.name, it.reason, it.message) for it in found.listed])


def _endings(report: Report) -> Iterator[str]:
    if not report.invalid and not report.failed:
        yield "No trial failed, and none was invalid."
    yield from _ended("invalid", report.invalid)
    yield from _ended("failed", report.failed)


def _ended(kind: str, found: Sequence[Ending]) -> Iterator[str]:
    yield from _table(
        (kind, "candidate", "reason", "why"), [(it.trial, it.candidate, it.reason, it.message) for it in found]
    )


def _rollout(report: Report) -> Iterator[str]:
    guide = report.rollout
    yield _text(guide.state)
    rows = [(it.name, it.namespace, it.approval, it.phase, it.message) for it in guide.stages]
    yield from _table(("stage", "namespace", "approval", "phase", ""), rows)
    for it in guide.instructions:
        yield from ("", f"**{_text(it.title)}.** {_text(it.text)}")
        if it.command:
            yield from ("", *_code(it.command))


def _code(command: str) -> Iterator[str]:
    """A fence longer than any in the text, so that no value can end it."""
    fence = "`" * max(3, 1 + max((len(it) for it in re.findall(r"`+", command)), default=0))
    yield f"{fence}shell"
    yield command
    yield fence


def _rows(head: tuple[str, ...], rows: Sequence[Row]) -> Iterator[str]:
    yield from _table(head, [it.cells for it in rows])


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Nothing without rows."""
    if not rows:
        return
    yield ""
    yield f"| {' | '.join(_text(it) for it in head)} |"
    yield "|" + "---|" * len(head)
    for it in rows:
        yield f"| {' | '.join(_text(cell) for cell in it)} |"


def _text(text: str) -> str:
    """One line in which nothing is markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _fitness(value: float | None) -> str:
    return f"{value:.3f}" if value is not None else ""
