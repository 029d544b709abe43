"""A plan as a table, as JSON and as a page with one bar for every candidate."""

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cotune.planning.candidates import PlannedCandidate
from cotune.planning.cards import Card
from cotune.planning.server import Part
from cotune.planning.sizes import MIB, gib
from cotune.planning.stack import StackPlan

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
    rows = "\n".join(_html_row(it) for it in report.planned)
    drawn = {part.what for it in report.planned for part in (*it.plan.parts, *it.plan.wanted)}
    legend = " ".join(
        f'<i style="background:{colour}"></i>{_WORDS.get(what, what)}'
        for what, colour in _COLOURS.items()
        if what in drawn
    )
    source = f" ({html.escape(report.card.source)})" if report.card.source else ""
    known = ", ".join(
        f"{it.removesuffix('_bytes').replace('_', '-')} {report.card.provenance(it)}"
        for it in sorted(report.card.measured | report.card.published)
    )
    fitting = sum(it.plan.fits for it in report.planned)
    note = f"<p>Not planned: {html.escape(', '.join(report.unplanned))}.</p>" if report.unplanned else ""
    advice = f"<p>{html.escape(report.advice)}.</p>" if report.advice else ""
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Plan of {html.escape(report.name)}</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 2em; }}
td, th {{ padding: 2px 10px; text-align: left; white-space: nowrap; }}
tr:nth-child(even) {{ background: #f7f7f7; }}
.bar {{ display: flex; position: relative; width: 420px; height: 18px; background: #e4e4e4; }}
.bar b {{ height: 100%; flex: none; }}
.wanted, b.wanted {{ background-image: repeating-linear-gradient(45deg, #fff9 0 3px, #0000 3px 6px); }}
.bar u {{ position: absolute; top: -2px; height: 22px; border-left: 2px solid #b00; }}
i {{ display: inline-block; width: 12px; height: 12px; margin: 0 4px 0 12px; vertical-align: -1px; }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
.why {{ white-space: normal; max-width: 42em; }}
.no {{ color: #b00; }}
</style>
<h1>{html.escape(report.name)} on {html.escape(report.card.product)}, {gib(report.card.total_bytes):.2f} GiB</h1>
<p>{fitting} of {len(report.planned)} candidates fit. Of the card's figures: {known or "none measured"}{source}; all
others modelled.</p>
<p>{legend} <i style="background:#e4e4e4"></i>free
<i class="wanted" style="background-color:#888"></i>asked for by the server that does not start
<i style="background:#b00; width: 2px"></i>its budget</p>
<table>
<tr><th>Candidate<th><th>Card<th class="number">KV tokens<th class="number">Requests<th class="number">Free GiB<th></tr>
{rows}
</table>{advice}{note}</html>"""


def _html_row(it: PlannedCandidate) -> str:
    plan = it.plan
    held = "".join(_html_part(part, plan.total) for part in plan.parts)
    left = plan.free
    for part in plan.wanted:  # Cut off where the card ends.
        drawn = min(part.size, left)
        held += _html_part(Part(part.component, part.what, drawn), plan.total, "wanted", part.size)
        left -= drawn
    tokens = ", ".join(f"{model.tokens:,}" for model in plan.language_models.values()) if plan.fits else "-"
    requests = ", ".join(f"{model.concurrency:.2f}" for model in plan.language_models.values()) if plan.fits else "-"
    free = f"{gib(plan.free):.2f}" if plan.fits else "-"
    return (
        f'<tr><td>{html.escape(_values(it))}<td class="{"yes" if plan.fits else "no"}">{_verdict(plan)}'
        f'<td><div class="bar">{held}{_html_budget(plan)}</div><td class="number">{tokens}<td class="number">{requests}'
        f'<td class="number">{free}<td class="why{"" if plan.fits else " no"}">{html.escape(_why(plan))}</tr>'
    )


def _html_part(part: Part, total: int, kind: str = "", whole: int | None = None) -> str:
    size = gib(part.size if whole is None else whole)
    words = html.escape(f"{part.component}: {_WORDS.get(part.what, part.what)}, {size:.2f} GiB")
    return (
        f'<b class="{kind}" style="width:{100 * part.size / total:.2f}%;'
        f'background-color:{_COLOURS.get(part.what, "#bbb")}" title="{words}"></b>'
    )


def _html_budget(plan: StackPlan) -> str:
    """A mark where the budget of a language model ends that does not start."""
    model = plan.language_models.get(plan.refused or "")
    if model is None:
        return ""
    before = plan.total - plan.free
    return f'<u style="left:{min(100 * (before + model.budget) / plan.total, 100):.2f}%" title="its budget"></u>'


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
