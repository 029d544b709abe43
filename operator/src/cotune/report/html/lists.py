"""The sections that list: trials, what was skipped, what failed, and what to do now."""

from collections.abc import Mapping, Sequence

from cotune.report.candidates import Role
from cotune.report.endings import Ending
from cotune.report.html.document import AnyCell, Cell, breakable, missing, row, table
from cotune.report.html.markup import Markup, joined, tag
from cotune.report.report import Report
from cotune.report.rollout import Instruction
from cotune.report.trial_table import TrialRow
from cotune.report.units import figure

_PILLS = {"Succeeded": "pill better", "Failed": "pill worse", "Invalid": "pill worse"}


def trials_section(report: Report) -> Markup:
    """Every trial."""
    found = report.table
    if not found.rows:
        return missing("There is no trial yet.")
    heads: tuple[AnyCell, ...] = (
        "trial",
        *found.parameters,
        "phase",
        "fitness",
        *(breakable(it) for it in found.metrics),
        "purpose",
        "repeat",
        "reason",
        "took",
    )
    rows = [_trial(it, found.metrics, report.sides) for it in found.rows]
    lead = (
        "The best candidate first, its runs together. A fitness of the search only says whom to confirm; the verdict "
        "rests on the runs of purpose Confirmation."
    )
    return joined(tag("p", lead, class_="lead"), table(f"{len(rows):,} trials", heads, rows, is_tall=True))


def skipped_section(report: Report) -> Markup:
    """By reason with figures, then each."""
    found = report.skipped
    if not found.is_planned:
        return missing("The planner had no word on the candidates, so none was skipped.")
    if not found.reasons:
        return missing("All candidates fit by arithmetic: none was skipped.")
    reasons = table(
        "Reasons",
        ("reason", "cannot start", "not run", "for example"),
        (row(it.reason, str(it.count), str(it.skipped), Cell(it.example, "words")) for it in found.reasons),
    )
    lead = "What cannot start by arithmetic is not run."
    if found.gpu_seconds_saved is not None:
        lead += f" That saved about {found.gpu_seconds_saved:,.0f} seconds of the card."
    listed = (
        table(
            "Candidates",
            ("candidate", "reason", "why"),
            (row(it.name, it.reason, Cell(it.message, "words")) for it in found.listed),
        )
        if found.listed
        else None
    )
    more = tag("details", tag("summary", f"{len(found.listed):,} candidates, each with its figures"), listed)
    return joined(tag("p", lead, class_="lead"), reasons, more if listed is not None else None)


def endings_section(report: Report) -> Markup:
    """Failed says something of the candidate, invalid does not."""
    if not report.invalid and not report.failed:
        return missing("No trial failed, and none was invalid.")
    lead = (
        "An invalid trial broke a gate on truth or was disturbed: nothing of it is kept, it never scores, and it is "
        "run again, twice at most. A failed one says something of its candidate."
    )
    return joined(
        tag("p", lead, class_="lead"),
        _endings("Invalid", report.invalid),
        _endings("Failed", report.failed),
    )


def rollout_section(report: Report) -> Markup:
    """Commands to copy: a click selects all of one."""
    guide = report.rollout
    stages = (
        table(
            "Stages",
            ("stage", "namespace", "approval", "phase", ""),
            (row(it.name, it.namespace, it.approval, it.phase, Cell(it.message, "words")) for it in guide.stages),
        )
        if guide.stages
        else None
    )
    steps = tag("ol", (_instruction(it) for it in guide.instructions), class_="steps") if guide.instructions else None
    return joined(tag("p", guide.state, class_="lead"), stages, steps)


def _trial(it: TrialRow, metrics: Sequence[str], sides: Mapping[Role, str]) -> Markup:
    class_ = None if it.role is Role.OTHER else str(it.role)
    who = None if it.role is Role.OTHER else tag("span", sides[it.role], class_="sub")
    return row(
        Cell(joined(it.name, who), "figure"),
        *it.values,
        tag("span", it.phase, class_=_PILLS.get(it.phase, "pill")),
        f"{it.fitness:.3f}" if it.fitness is not None else None,
        *(
            Cell(figure(metric, value), "figure") if value is not None else None
            for metric, value in zip(metrics, it.metrics, strict=True)
        ),
        it.purpose,
        str(it.repeat),
        it.reason or None,
        Cell(f"{it.seconds:,.0f} s", "figure") if it.seconds is not None else None,
        class_=class_,
    )


def _endings(kind: str, found: Sequence[Ending]) -> Markup:
    if not found:
        return tag("p", f"{kind}: none.", class_="lead")
    rows = (row(Cell(it.trial, "figure"), it.candidate, it.reason, Cell(it.message, "words")) for it in found)
    return table(f"{kind}: {len(found):,}", ("trial", "candidate", "reason", "why"), rows)


def _instruction(it: Instruction) -> Markup:
    command = tag("pre", tag("code", it.command), tabindex=0, aria_label=f"Command: {it.title}") if it.command else None
    return tag("li", tag("h3", it.title), tag("p", it.text), command)
