"""A plan as a table, as JSON and as a page with one bar for every candidate."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cotune.planning.candidates import PlannedCandidate
from cotune.planning.cards import Card
from cotune.planning.server import Part
from cotune.planning.sizes import MIB, gib
from cotune.planning.stack import StackPlan
from cotune.report.html.document import Cell, document, row, table
from cotune.report.html.markup import Markup, joined, tag

_BAR = 40
_LETTERS = {
    "weights": "W",
    "activations": "A",
    "KV cache": "K",
    "Whisper weights": "S",
    "working": "s",
    "decoder cache": "s",
    "held": "o",
}
_COLOURS = {
    "weights": "#4269d0",
    "activations": "#efb118",
    "KV cache": "#3ca951",
    "Whisper weights": "#8a3fd1",
    "decoder cache": "#b57bee",
    "working": "#d6b3f7",
    "held": "#9c6b4e",
    "libraries": "#97bbf5",
    "context": "#9498a0",
    "context and graphs": "#9498a0",
}
_WORDS = {"working": "Whisper at work", "held": "others", "decoder cache": "Whisper's cache"}
"""What the picture calls a part, where that is another word."""


@dataclass(frozen=True)
class Report:
    """What is told of one experiment."""

    name: str
    card: Card
    planned: Sequence[PlannedCandidate]
    unplanned: Sequence[str]
    """Components of which nothing is known."""
    order: Sequence[str] = ()
    """In which candidates fit that do not fit in the declared order; empty: there is none."""

    @property
    def advice(self) -> str:
        """On the order of start; empty when there is none."""
        if not self.order:
            return ""
        return f"more of them fit when each waits (dependsOn) for the one before: {', '.join(self.order)}"


def as_table(report: Report) -> str:
    """Text for a terminal."""
    rows = [("", "CANDIDATE", "KV TOKENS", "REQUESTS", "FREE GiB", "CARD", "")]
    for it in report.planned:
        plan = it.plan
        rows.append(
            (
                _verdict(plan),
                _values(it),
                ", ".join(f"{model.tokens:,}" for model in plan.language_models.values()) if plan.fits else "-",
                ", ".join(f"{model.concurrency:.2f}" for model in plan.language_models.values()) if plan.fits else "-",
                f"{gib(plan.free):.2f}" if plan.fits else "-",
                _bar(plan),
                _why(plan),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"{report.name} on {report.card.product} ({gib(report.card.total_bytes):.2f} GiB)", ""]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [
        "",
        "W weights  A activations  K KV cache  S Whisper's weights  s its cache and work  o others  : rest  . free",
        "! asked for by the server that does not start",
    ]
    fitting = sum(it.plan.fits for it in report.planned)
    lines.append(f"{fitting} of {len(report.planned)} candidates fit")
    if report.advice:
        lines.append(report.advice)
    if report.unplanned:
        lines.append(f"not planned, for they have no `memory`: {', '.join(report.unplanned)}")
    return "\n".join(lines)


def as_json(report: Report) -> str:
    """The whole plan; sizes in GiB with four decimals, so that a token's share is still visible."""
    return json.dumps(
        {
            "experiment": report.name,
            "card": {
                "product": report.card.product,
                "totalGiB": _rounded(report.card.total_bytes),
                "driverGiB": _rounded(report.card.driver_bytes),
                "eccGiB": _rounded(report.card.ecc_bytes),
                "measured": sorted(report.card.measured),
                "published": sorted(report.card.published),
                "source": report.card.source,
            },
            "unplanned": list(report.unplanned),
            "startOrder": list(report.order),
            "candidates": [
                {
                    "parameters": dict(it.candidate.values),
                    "fits": it.plan.fits,
                    "doubtful": it.plan.is_doubtful,
                    "doubts": list(it.plan.doubts),
                    "refusal": it.plan.refusal,
                    "message": it.plan.message,
                    "freeGiB": _rounded(it.plan.free),
                    "parts": [
                        {"component": part.component, "what": part.what, "GiB": _rounded(part.size)}
                        for part in it.plan.parts
                    ],
                    "wanted": [
                        {"component": part.component, "what": part.what, "GiB": _rounded(part.size)}
                        for part in it.plan.wanted
                    ],
                    "languageModels": {
                        component: {
                            "budgetGiB": _rounded(model.budget),
                            "weightsGiB": _rounded(model.weights),
                            "activationsGiB": _rounded(model.activations),
                            "kvCacheGiB": _rounded(model.kv_cache),
                            "outsideGiB": _rounded(model.outside),
                            "kvBlockBytes": model.block_bytes,
                            "kvBlockTokens": model.block_size,
                            "kvCacheBlocks": model.blocks,
                            "kvCacheTokens": model.tokens,
                            "concurrency": round(model.concurrency, 2),
                            "maxModelLen": model.max_model_len,
                            "refusal": model.refusal,
                        }
                        for component, model in it.plan.language_models.items()
                    },
                }
                for it in report.planned
            ],
        },
        indent=2,
    )


def as_html(report: Report) -> str:
    """One self-contained page: the card as a bar for every candidate."""
    title = f"{report.name} on {report.card.product}, {gib(report.card.total_bytes):.2f} GiB"
    fitting = sum(it.plan.fits for it in report.planned)
    heads = ("Candidate", "Card", "KV tokens", "Requests", "Free GiB")
    rows = [_html_row(it) for it in report.planned]
    return document(
        f"Plan of {report.name}",
        tag("header", tag("h1", title), class_="top"),
        tag(
            "main",
            tag(
                "section",
                tag("p", _provenance(report.card)),
                tag("ul", _legend(report.planned), class_="key"),
                table(f"{fitting} of {len(rows)} candidates fit", heads, rows),
                tag("p", f"{report.advice}.") if report.advice else None,
                tag("p", f"Not planned: {', '.join(report.unplanned)}.") if report.unplanned else None,
            ),
        ),
    )


def _provenance(card: Card) -> str:
    known = ", ".join(
        f"{it.removesuffix('_bytes').replace('_', '-')} {card.provenance(it)}"
        for it in sorted(card.measured | card.published)
    )
    source = f" ({card.source})" if card.source else ""
    return f"Of the card's figures: {known or 'none measured'}{source}; all others modelled."


def _legend(planned: Sequence[PlannedCandidate]) -> Iterator[Markup]:
    drawn = {part.what for it in planned for part in (*it.plan.parts, *it.plan.wanted)}
    for what, colour in _COLOURS.items():
        if what in drawn:
            yield _swatch(_WORDS.get(what, what), f"background:{colour}")
    yield _swatch("free", "background:var(--unclear-back)")
    if any(it.plan.wanted for it in planned):
        yield _swatch("asked for by the server that does not start", "background-color:#888", "swatch wanted")
        yield _swatch("its budget", "width:2px;background:var(--worse)")


def _swatch(words: str, style: str, class_: str = "swatch") -> Markup:
    return tag("li", tag("i", class_=class_, style=style), words)


def _html_row(it: PlannedCandidate) -> Markup:
    plan = it.plan
    bars = [_html_part(it, plan.total) for it in plan.parts]
    left = plan.free
    for part in plan.wanted:  # Cut off where the card ends.
        drawn = min(part.size, left)
        bars.append(_html_part(Part(part.component, part.what, drawn), plan.total, "wanted", part.size))
        left -= drawn
    models = plan.language_models.values()
    return row(
        Cell(_values(it), "figure"),
        joined(tag("div", bars, _html_budget(plan), class_="bar"), tag("span", _why(plan), class_="sub")),
        ", ".join(f"{model.tokens:,}" for model in models) if plan.fits else None,
        ", ".join(f"{model.concurrency:.2f}" for model in models) if plan.fits else None,
        f"{gib(plan.free):.2f}" if plan.fits else None,
    )


def _html_part(part: Part, total: int, kind: str | None = None, whole: int | None = None) -> Markup:
    size = gib(part.size if whole is None else whole)
    return tag(
        "b",
        class_=kind,
        style=f"width:{100 * part.size / total:.2f}%;background-color:{_COLOURS.get(part.what, '#bbb')}",
        title=f"{part.component}: {_WORDS.get(part.what, part.what)}, {size:.2f} GiB",
    )


def _html_budget(plan: StackPlan) -> Markup | None:
    """A mark where the budget of a language model ends that does not start."""
    model = plan.language_models.get(plan.refused or "")
    if model is None:
        return None
    end = min(100 * (plan.total - plan.free + model.budget) / plan.total, 100)
    return tag("u", style=f"left:{end:.2f}%", title="its budget")


def _why(plan: StackPlan) -> str:
    """The refusal, or what makes it doubtful."""
    return f"{plan.refusal}: {plan.message}" if plan.refusal else "; ".join(plan.doubts)


def _verdict(plan: StackPlan) -> str:
    if not plan.fits:
        return "no"
    return "maybe" if plan.is_doubtful else "fits"


def _values(it: PlannedCandidate) -> str:
    return " ".join(f"{name}={value}" for name, value in it.candidate.values.items())


def _bar(plan: StackPlan) -> str:
    """The card in letters, each a fortieth of it: cumulated, so that rounding moves nothing out of place."""
    held = "".join(_letters(plan.parts, plan.total))
    wanted = round(_BAR * sum(it.size for it in plan.wanted) / plan.total)
    return (held + "!" * wanted).ljust(_BAR, ".")[:_BAR]


def _letters(parts: Sequence[Part], total: int) -> Iterator[str]:
    letters: Mapping[str, str] = _LETTERS
    before, drawn = 0, 0
    for part in parts:
        before += part.size
        until = round(_BAR * before / total)
        yield letters.get(part.what, ":") * (until - drawn)
        drawn = until


def _rounded(size: int) -> float:
    return round(size / MIB / 1024, 4)
