"""A page that needs nothing but itself: what all of cotune's pages share."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

from cotune.report.html.markup import Content, Markup, joined, tag

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""Nothing is loaded, sent or run, whatever a page says."""


def document(title: str, *content: Markup) -> str:
    """The whole file.

    Args:
        title: of the browser's window.
        content: of the body.
    """
    style = resources.files("cotune.report.html").joinpath("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', *content), lang='en')}\n"


@dataclass(frozen=True)
class Cell:
    """A cell that looks otherwise than its neighbours."""

    content: Content
    class_: str | None = None
    style: str | None = None


AnyCell = str | Markup | Cell | None
"""None: it is not known."""


def table(
    caption: str, head: Iterable[AnyCell], rows: Iterable[Markup], class_: str | None = None, is_tall: bool = False
) -> Markup:
    """A table in a region of its own: where it is too wide, or is said to be tall, it scrolls, not the page."""
    heads = tag("thead", tag("tr", (_cell("th", it, scope="col") for it in head)))
    inner = tag("table", tag("caption", caption), heads, tag("tbody", rows), class_=class_)
    return tag(
        "div", inner, class_="scroll tall" if is_tall else "scroll", tabindex=0, role="region", aria_label=caption
    )


def row(head: AnyCell, *cells: AnyCell, class_: str | None = None) -> Markup:
    """The first cell names the row."""
    return tag("tr", _cell("th", head, scope="row"), (_cell("td", it) for it in cells), class_=class_)


def breakable(metric: str) -> Markup:
    """A long name may break after a dot, and nowhere else."""
    first, *rest = metric.split(".")
    return joined(first, *(joined(".", tag("wbr"), it) for it in rest))


def unknown(words: str = "unknown") -> Markup:
    """Something that is not known, said as such."""
    return tag("span", words, class_="unknown")


def missing(words: str) -> Markup:
    """In place of a picture for which there are no data."""
    return tag("p", words, class_="unknown")


def _cell(kind: str, cell: AnyCell, scope: str | None = None) -> Markup:
    if isinstance(cell, Cell):
        return tag(kind, cell.content, scope=scope, class_=cell.class_, style=cell.style)
    return tag(kind, unknown("–") if cell is None else cell, scope=scope)
