"""The sections that show: candidates against each other, latencies, the card, and what services do to each other."""

from collections.abc import Mapping

from cotune.report.candidates import Role
from cotune.report.card_memory import CardTrace
from cotune.report.html.curves import latency_plot, memory_plot
from cotune.report.html.document import Cell, breakable, missing, row, table
from cotune.report.html.markup import Markup, joined, tag
from cotune.report.html.parallel_plot import parallel_plot
from cotune.report.html.pareto_plot import pareto_plot
from cotune.report.html.plot import key, line_sign
from cotune.report.interference import InterferenceMatrix, Slowdown
from cotune.report.latencies import LatencyFigure
from cotune.report.report import Report
from cotune.report.units import figure, quantity

_HOTTEST = 3.0
"""A slowdown that is as dark as it gets."""


def no_raw_data(report: Report, what: str) -> str:
    """Why a picture is missing."""
    if report.compared_runs == 0:
        return f"No run of the baseline or of a challenger was measured, so there is no {what}."
    if report.raw_runs == 0:
        return f"No raw data, so no {what}: give the folder of the raw results with --artifacts."
    return f"The raw results of these runs have no {what}."


def _key(report: Report) -> Markup:
    return key((line_sign(f"s-{role}"), name) for role, name in report.sides.items())


def pareto_section(report: Report) -> Markup:
    """The picture and, for those who do not see it, the front as a table."""
    found = report.pareto
    if found is None:
        return missing("Fewer than two objectives were measured, so there is no front.")
    x, y = found.x.metric, found.y.metric
    lead = (
        f"{x} against {y}: of the objectives that differ between candidates, the two that weigh most. Each point is "
        "the mean of all measured runs of a candidate; one that had few moves by noise alone."
    )
    rows = [
        row(
            it.name,
            Cell(figure(x, it.x), "figure"),
            Cell(figure(y, it.y), "figure"),
            str(it.runs),
            class_=_role(it.role),
        )
        for it in found.front
    ]
    front = table("On the front: nobody is better in both", ("candidate", breakable(x), breakable(y), "runs"), rows)
    return joined(
        tag("p", lead, class_="lead"),
        tag("div", tag("figure", pareto_plot(found, report.sides[Role.CHALLENGER])), tag("div", front), class_="two"),
    )


def parallel_section(report: Report) -> Markup:
    """All candidates over all parameters."""
    found = report.parallel
    if found is None:
        return missing("There is no trial yet.")
    lead = "Every line is a candidate: its settings from left to right, and the fitness that it came to."
    if found.left_out:
        lead += f" The best {len(found.lines):,} are shown, {found.left_out:,} are not."
    return joined(tag("p", lead, class_="lead"), tag("figure", parallel_plot(found, report.sides[Role.CHALLENGER])))


def latency_section(report: Report) -> Markup:
    """One picture for each component and quantity."""
    if not report.latencies:
        return missing(no_raw_data(report, "latency histograms"))
    lead = (
        "What share of the requests was answered within a time, over all compared runs with raw data. Latencies count "
        "from when a request was due, so that a stalled server cannot hide its queue."
    )
    figures = (_latency(it, report.sides) for it in report.latencies)
    return joined(tag("p", lead, class_="lead"), _key(report), tag("div", figures, class_="two"))


def memory_section(report: Report) -> Markup:
    """All runs over time."""
    if report.card_memory is None:
        return missing(no_raw_data(report, "readings of the card"))
    plot = tag("div", memory_plot(report.card_memory), class_="scroll wide", tabindex=0)
    rows = [_trace(it, report.sides) for it in report.card_memory.traces]
    figures = table("The same in figures", ("run", "side", "least", "most"), rows)
    more = tag("details", tag("summary", f"{len(rows)} runs in figures"), figures)
    lead = "Memory in use on the card, one line for each run. Where the driver did not answer, the line is broken."
    return joined(tag("p", lead, class_="lead"), _key(report), tag("figure", plot), more)


def interference_section(report: Report) -> Markup:
    """A table of slowdowns for each side."""
    if not report.interference:
        return missing(
            "Interference was not measured: the experiment did not ask for it, or the trials do not have it."
        )
    lead = (
        "The p95 of a service beside what was loaded with it, and how many times as long that is as alone. The darker, "
        "the more the others slow it."
    )
    return joined(
        tag("p", lead, class_="lead"),
        tag("div", (_matrix(it, report.sides) for it in report.interference), class_="two"),
    )


def _latency(it: LatencyFigure, sides: Mapping[Role, str]) -> Markup:
    rows = [
        row(
            sides[curve.role],
            *(
                Cell(quantity(value, "ms"), "figure")
                for value in (
                    curve.distribution.percentiles.p50,
                    curve.distribution.percentiles.p95,
                    curve.distribution.percentiles.p99,
                )
            ),
            Cell(f"{curve.distribution.percentiles.samples:,} in {curve.runs} runs", "figure"),
            class_=_role(curve.role),
        )
        for curve in it.curves
    ]
    title = f"{it.component}: {it.quantity}"
    figures = table(f"Percentiles of {title}", ("", "p50", "p95", "p99", "requests"), rows, "quiet")
    return tag("figure", tag("figcaption", title), latency_plot(it), figures)


def _trace(trace: CardTrace, sides: Mapping[Role, str]) -> Markup:
    used = [it for _, it in trace.points if it is not None]
    return row(
        trace.trial,
        sides[trace.role],
        Cell(quantity(min(used), "MiB"), "figure"),
        Cell(quantity(max(used), "MiB"), "figure"),
        class_=_role(trace.role),
    )


def _matrix(matrix: InterferenceMatrix, sides: Mapping[Role, str]) -> Markup:
    heads = ("p95 of", *(f"beside {it}" for it in matrix.components), "all loaded")
    rows = [
        row(component, *(_slowdown(it) for it in cells))
        for component, cells in zip(matrix.components, matrix.cells, strict=True)
    ]
    return tag("div", table(f"{sides[matrix.role]} ({matrix.trial})", heads, rows, "heat"))


def _slowdown(it: Slowdown) -> Cell:
    if it.p95_ms is None:
        return Cell(tag("span", "–", class_="unknown"), "none")
    if it.ratio is None:
        return Cell(tag("b", quantity(it.p95_ms, "ms")))
    heat = min(max(it.ratio - 1, 0.0) / (_HOTTEST - 1), 1.0) * 0.38
    if it.is_alone:
        return Cell(joined(tag("b", "alone"), quantity(it.p95_ms, "ms")), "none")
    return Cell(
        joined(tag("b", f"×{it.ratio:.2f}"), quantity(it.p95_ms, "ms")),
        style=f"background:rgba(var(--heat), {heat:.3f})",
    )


def _role(role: Role) -> str | None:
    return None if role is Role.OTHER else str(role)
