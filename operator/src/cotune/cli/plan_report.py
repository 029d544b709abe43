"""A plan as a table, as JSON and as a page with one bar for every candidate."""

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cotune.planning.candidates import PlannedCandidate
from cotune.planning.cards import Card
from cotune.planning.sizes import MIB, gib
from cotune.planning.stack import Part, StackPlan

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
    rows = "\n".join(_html_row(it) for it in report.planned)
    legend = " ".join(f'<i style="background:{colour}"></i>{what}' for what, colour in _COLOURS.items())
    note = f"<p>Not planned: {html.escape(', '.join(report.unplanned))}.</p>" if report.unplanned else ""
    advice = f"<p>{html.escape(report.advice)}.</p>" if report.advice else ""
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Plan of {html.escape(report.name)}</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 2em; }}
td, th {{ padding: 2px 10px; text-align: left; white-space: nowrap; }}
.bar {{ display: flex; width: 420px; height: 18px; background: #eee; }}
.bar b {{ height: 100%; }}
i {{ display: inline-block; width: 12px; height: 12px; margin: 0 4px 0 12px; }}
.no {{ color: #b00; white-space: normal; }}
</style>
<h1>{html.escape(report.name)} on {html.escape(report.card.product)}, {gib(report.card.total_bytes):.2f} GiB</h1>
<p>{legend} <i style="background:#eee"></i>free</p>
<table><tr><th>Candidate<th>Card<th>KV tokens<th>Requests<th>Free GiB<th></tr>
{rows}
</table>{advice}{note}</html>"""


def _html_row(it: PlannedCandidate) -> str:
    plan = it.plan
    bars = "".join(
        f'<b style="width:{100 * part.size / plan.total:.2f}%;background:{_COLOURS.get(part.what, "#bbb")}" '
        f'title="{html.escape(part.component)} {html.escape(part.what)}: {gib(part.size):.2f} GiB"></b>'
        for part in plan.parts
    )
    tokens = ", ".join(f"{model.tokens:,}" for model in plan.language_models.values()) if plan.fits else "-"
    requests = ", ".join(f"{model.concurrency:.2f}" for model in plan.language_models.values()) if plan.fits else "-"
    free = f"{gib(plan.free):.2f}" if plan.fits else "-"
    return (
        f'<tr><td>{html.escape(_values(it))}<td><div class="bar">{bars}</div><td>{tokens}<td>{requests}<td>{free}'
        f'<td class="no">{html.escape(_why(plan))}</tr>'
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
