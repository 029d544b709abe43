"""The sections that answer: the verdict, what was asked, and the winner beside the baseline."""

from cotune.api.experiment import Outcome
from cotune.fitness.bootstrap import Interval
from cotune.report.candidates import Role
from cotune.report.comparison import Comparison, Direction, Effect, KeptBound
from cotune.report.html.document import AnyCell, Cell, breakable, missing, row, table, unknown
from cotune.report.html.forest import ForestScale
from cotune.report.html.markup import Markup, joined, tag
from cotune.report.report import Report
from cotune.report.request import Row
from cotune.report.units import change, figure, percent, share, signed
from cotune.report.validation import Validation

_CLASSES = {Outcome.BETTER: "better", Outcome.NOT_BETTER: "not-better", Outcome.CANNOT_TELL: "cannot-tell"}
_PILLS = {Direction.BETTER: "pill better", Direction.WORSE: "pill worse", Direction.UNCLEAR: "pill"}
_SIGNS = {Direction.BETTER: "✓ better", Direction.WORSE: "✕ worse", Direction.UNCLEAR: "no clear change"}
_MOST_TILES = 6


def verdict_section(report: Report) -> Markup:
    """One sentence, and the figures behind it at a glance."""
    verdict = report.verdict
    class_ = f"verdict {_CLASSES.get(verdict.outcome, '') if verdict.outcome is not None else ''}".strip()
    return tag(
        "section",
        tag("span", verdict.label, class_="label"),
        tag("h2", verdict.sentence),
        (tag("p", it, class_="note") for it in verdict.notes),
        tag("dl", _tiles(report), class_="tiles"),
        class_=class_,
        id="verdict",
    )


def request_section(report: Report) -> Markup:
    """The experiment in tables."""
    asked = report.request
    return joined(
        tag("p", f"Card: {asked.card}. Search: {asked.search}. Window: {asked.window}.", class_="lead"),
        tag(
            "div",
            tag(
                "div",
                _rows("What may change", ("parameter", "bound to", "values", "today"), asked.parameters),
                _rows("Objectives", ("metric", "goal", "weight"), asked.objectives),
            ),
            tag(
                "div",
                _rows("Load on all services at once", ("service", "arrivals", "requests"), asked.streams),
                _rows("Constraints", ("metric", "bound"), asked.constraints)
                if asked.constraints
                else missing("There are no constraints."),
            ),
            class_="two",
        ),
        _rows(
            "The stack, in the order in which it starts",
            ("service", "protocol", "image", "memory"),
            asked.components,
        ),
    )


def comparison_section(report: Report) -> Markup:
    """Both sides with intervals, as figures and as a forest plot."""
    found = report.comparison
    if found is None:
        return missing("No candidate was run again beside the baseline, so nothing can be said of a difference.")
    scale = ForestScale.of(found.effects)
    lead = (
        f"Means of {found.repeats} fresh runs of the candidate and {found.baseline_repeats} of the baseline, by turns, "
        f"after the search. Intervals at {percent(found.confidence)}, over whole runs; not corrected for there being "
        "several objectives."
    )
    heads: tuple[AnyCell, ...] = (
        "objective",
        "baseline",
        report.sides[Role.CHALLENGER],
        "change",
        Cell(scale.axis() if scale is not None else None, "forest"),
        "",
    )
    return joined(
        tag("p", lead, class_="lead"),
        _settings(found, report.sides[Role.CHALLENGER]),
        table("Objectives, by their weight in the fitness", heads, _effects(found, scale)),
        _validation(report.validation),
        _bounds(found, report.sides[Role.CHALLENGER]),
        _others(found, report.sides[Role.CHALLENGER]),
    )


def _tiles(report: Report) -> "list[Markup]":
    verdict, found = report.verdict, report.comparison
    tiles: list[Markup] = []
    if verdict.gain is not None and verdict.confidence is not None:
        bounds = f"{percent(verdict.confidence)}: {_span(verdict.gain)}"
        tiles.append(_tile("gain in fitness", signed(verdict.gain.estimate), bounds))
        part = report.validation
        if part is not None and part.is_partial and part.gain is not None:
            bounds = f"{percent(verdict.confidence)}: {_span(part.gain)}"
            tiles.append(_tile("gain of the profile", signed(part.gain.estimate), bounds))
    clear = [it for it in found.effects if it.direction is not Direction.UNCLEAR] if found is not None else []
    # What became worse is never left out for want of room.
    first = sorted(clear, key=lambda effect: (effect.direction is not Direction.WORSE, -effect.weight))
    for it in sorted(first[: _MOST_TILES - 1 - len(tiles)], key=lambda effect: -effect.weight):
        said = share(it.relative.estimate) if it.relative is not None else change(it.metric, it.candidate - it.baseline)
        was_and_is = f"{figure(it.metric, it.baseline)} → {figure(it.metric, it.candidate)}"
        tiles.append(_tile(it.metric, said, was_and_is, it.direction))
    skipped = sum(it.skipped for it in report.skipped.reasons)
    saved = report.skipped.gpu_seconds_saved
    spared = f"{skipped:,} skipped by arithmetic" + (f", about {saved:,.0f} GPU-seconds saved" if saved else "")
    tiles.append(_tile("trials", f"{report.trials:,}", f"{spared}; {len(report.invalid)} invalid"))
    return tiles


def _tile(what: str, value: str, small: str, direction: Direction | None = None) -> Markup:
    pill = tag("span", _SIGNS[direction], class_=_PILLS[direction]) if direction is not None else None
    return tag("div", tag("dt", breakable(what)), tag("dd", value, tag("small", small), pill))


def _rows(caption: str, head: tuple[str, ...], rows: tuple[Row, ...]) -> Markup:
    return table(caption, head, (row(it.cells[0], *(Cell(cell) for cell in it.cells[1:])) for it in rows))


def _settings(found: Comparison, side: str) -> Markup:
    rows = [
        row(it.name, it.baseline, tag("b", it.candidate) if it.is_changed else f"{it.candidate} (the same)")
        for it in found.settings
    ]
    return table("Settings", ("parameter", "baseline", side), rows)


def _effects(found: Comparison, scale: ForestScale | None) -> "list[Markup]":
    return [
        row(
            joined(breakable(it.metric), tag("span", f"{percent(it.weight)} of the fitness", class_="sub")),
            Cell(figure(it.metric, it.baseline), "figure"),
            Cell(figure(it.metric, it.candidate), "figure"),
            Cell(_change(it), "figure"),
            Cell(scale.row(it, found.confidence) if scale is not None else None, "forest"),
            tag("span", _SIGNS[it.direction], class_=_PILLS[it.direction]),
        )
        for it in found.effects
    ]


def _change(effect: Effect) -> Markup:
    if effect.change is None:
        return tag("span", "too few runs to say", class_="unknown")
    if (relative := effect.relative) is None:
        bounds = f"{change(effect.metric, effect.change.lower)} to {change(effect.metric, effect.change.upper)}"
        return joined(change(effect.metric, effect.change.estimate), tag("span", bounds, class_="sub"))
    bounds = f"{share(relative.lower)} to {share(relative.upper)}"
    return joined(tag("b", share(relative.estimate)), tag("span", bounds, class_="sub"))


def _validation(found: Validation | None) -> Markup | None:
    if found is None:
        return None
    rows = [
        row(
            it.name,
            tag("span", "kept" if it.is_kept else "left out", class_="pill better" if it.is_kept else "pill worse"),
            Cell(_gain(it.gain), "figure"),
            Cell(it.message if it.is_kept else f"{it.reason}: {it.message}", "words"),
        )
        for it in found.changes
    ]
    if len(rows) > 1:
        beyond = f"{signed(found.interaction)} beyond the sum" if found.interaction is not None else ""
        rows.append(row("what is kept, together", None, Cell(_gain(found.gain), "figure"), Cell(beyond, "words")))
    heads = ("change", "in the profile", "gain in fitness", "")
    return table("Each change alone, by turns with the baseline", heads, rows)


def _gain(gain: Interval | None) -> Markup:
    if gain is None:
        return unknown("not measured")
    return joined(tag("b", signed(gain.estimate)), tag("span", _span(gain), class_="sub"))


def _span(gain: Interval) -> str:
    return f"{signed(gain.lower)} to {signed(gain.upper)}"


def _bounds(found: Comparison, side: str) -> Markup | None:
    if not found.bounds:
        return None
    rows = [
        row(it.metric, it.bound, _side(it, it.baseline, it.baseline_keeps), _side(it, it.candidate, it.candidate_keeps))
        for it in found.bounds
    ]
    return table("Constraints, over all of these runs", ("metric", "bound", "baseline", side), rows)


def _side(bound: KeptBound, span: tuple[float, float] | None, keeps: bool) -> Markup:
    if span is None:
        said = "not measured in all runs"
    else:
        low, high = (figure(bound.metric, it) for it in span)
        said = low if low == high else f"{low} to {high}"
    pill = tag("span", "kept" if keeps else "broken", class_="pill better" if keeps else "pill worse")
    return joined(f"{said} ", pill)


def _others(found: Comparison, side: str) -> Markup | None:
    if not found.others:
        return None
    rows = [
        row(it.metric, Cell(figure(it.metric, it.baseline), "figure"), Cell(figure(it.metric, it.candidate), "figure"))
        for it in found.others
    ]
    caption = "Means of the same runs; the verdict does not rest on them"
    inner = table(caption, ("metric", "baseline", side), rows)
    return tag("details", tag("summary", f"{len(rows)} further metrics"), inner)
