"""A plan as a table, as JSON and as a page with one bar for every candidate."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cotune.planning.candidates import PlannedCandidate
from cotune.planning.cards import Card
from cotune.planning.sizes import MIB, gib
from cotune.planning.stack import Part, StackPlan
from cotune.report.html.document import Cell, document, row, table
from cotune.report.html.markup import Markup, joined, tag

_BAR = 40
_LETTERS = {"weights": "W", "activations": "A", "KV cache": "K", "working": "w", "decoder cache": "k", "held": "o"}
_COLOURS = {
    "weights": "#4269d0",
    "activations": "#efb118",
    "KV cache": "#3ca951",
    "working": "#ff725c",
    "decoder cache": "#a463f2",
    "held": "#9c6b4e",
    "libraries": "#97bbf5",
    "context": "#9498a0",
    "context and graphs": "#9498a0",
}


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
        return f"more of them fit when they start in the order {', '.join(self.order)}" if self.order else ""


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
        "W weights  A activations  K KV cache  w working memory  k decoder cache  o others  : rest  . free",
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
                "measured": sorted(report.card.measured),
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
                    "languageModels": {
                        component: {
                            "budgetGiB": _rounded(model.budget),
                            "weightsGiB": _rounded(model.weights),
                            "activationsGiB": _rounded(model.activations),
                            "kvCacheGiB": _rounded(model.kv_cache),
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
    colours = {**_COLOURS, "free": "var(--unclear-back)"}
    legend = (tag("li", tag("i", class_="swatch", style=f"background:{it}"), what) for what, it in colours.items())
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
                tag("ul", legend, class_="key"),
                table(f"{fitting} of {len(rows)} candidates fit", heads, rows),
                tag("p", f"{report.advice}.") if report.advice else None,
                tag("p", f"Not planned: {', '.join(report.unplanned)}.") if report.unplanned else None,
            ),
        ),
    )


def _html_row(it: PlannedCandidate) -> Markup:
    plan = it.plan
    bars = (
        tag(
            "b",
            style=f"width:{100 * part.size / plan.total:.2f}%;background:{_COLOURS.get(part.what, '#bbb')}",
            title=f"{part.component} {part.what}: {gib(part.size):.2f} GiB",
        )
        for part in plan.parts
    )
    models = plan.language_models.values()
    return row(
        Cell(_values(it), "figure"),
        joined(tag("div", bars, class_="bar"), tag("span", _why(plan), class_="sub")),
        ", ".join(f"{model.tokens:,}" for model in models) if plan.fits else None,
        ", ".join(f"{model.concurrency:.2f}" for model in models) if plan.fits else None,
        f"{gib(plan.free):.2f}" if plan.fits else None,
    )


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
    return "".join(_letters(plan.parts, plan.total)).ljust(_BAR, ".")[:_BAR]


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
