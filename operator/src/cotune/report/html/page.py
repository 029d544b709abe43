"""The page: sections in the order in which a person reads them."""

from collections.abc import Callable
from dataclasses import dataclass

from cotune.report.candidates import Role
from cotune.report.html.answers import comparison_section, request_section, verdict_section
from cotune.report.html.document import document
from cotune.report.html.lists import endings_section, rollout_section, skipped_section, trials_section
from cotune.report.html.markup import Markup, joined, tag
from cotune.report.html.pictures import (
    interference_section,
    latency_section,
    memory_section,
    parallel_section,
    pareto_section,
)
from cotune.report.report import Report


@dataclass(frozen=True)
class Section:
    """One of them."""

    anchor: str
    title: str
    content: Callable[[Report], Markup]

    def title_of(self, report: Report) -> str:
        """A challenger that is not better is called none."""
        return self.title.format(side=report.sides[Role.CHALLENGER].capitalize())


SECTIONS = (
    Section("asked", "What was asked", request_section),
    Section("comparison", "{side} against baseline", comparison_section),
    Section("pareto", "Pareto front", pareto_section),
    Section("parallel", "Parallel coordinates", parallel_section),
    Section("trials", "Trials", trials_section),
    Section("latencies", "Latencies", latency_section),
    Section("memory", "Card memory over time", memory_section),
    Section("interference", "Interference", interference_section),
    Section("skipped", "Skipped, and why", skipped_section),
    Section("invalid", "Invalid and failed trials", endings_section),
    Section("rollout", "Roll out, approve, roll back", rollout_section),
)
"""After the verdict, which has no title of its own: it is one."""


def as_html(report: Report) -> str:
    """One self-contained page."""
    name = f"{report.namespace}/{report.name}"
    head = tag("header", tag("h1", "cotune report on ", tag("b", name), f" · {report.phase}"), class_="top")
    links = (tag("li", tag("a", it.title_of(report), href=f"#{it.anchor}")) for it in SECTIONS)
    nav = tag("nav", tag("ul", links), aria_label="Sections")
    sections = (_section(it, report) for it in SECTIONS)
    verdict = tag("main", verdict_section(report))
    return document(f"{report.name}: cotune report", head, verdict, nav, tag("main", sections), _footer(report))


def _section(it: Section, report: Report) -> Markup:
    title = it.title_of(report)
    return tag("section", tag("h2", title), it.content(report), id=it.anchor, aria_label=title)


def _footer(report: Report) -> Markup:
    digest = f" What was run: {report.spec_digest}." if report.spec_digest is not None else ""
    made = f"Made {report.made_at:%Y-%m-%d %H:%M} UTC from {report.trials:,} trials"
    raw = f", with the raw results of {report.raw_runs} of {report.compared_runs} compared runs."
    return tag(
        "footer",
        joined(
            made,
            raw,
            digest,
            " An interval covers what happened between the runs of this experiment: ",
            "another card, week or load is not in it.",
        ),
    )
