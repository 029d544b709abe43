"""HTML and SVG as values: text is escaped where it is put in, so that no name or message can be markup."""

import html
from collections.abc import Iterable
from dataclasses import dataclass

_VOID = frozenset({"meta", "br", "path", "line", "rect", "circle", "polyline", "col", "wbr"})
"""Elements without content."""


@dataclass(frozen=True)
class Markup:
    """A piece of a page that is safe as it stands."""

    text: str

    def __str__(self) -> str:
        return self.text


Content = str | Markup | Iterable["str | Markup | None"] | None
"""Text is escaped, markup is not; None is nothing."""


def tag(name: str, /, *content: Content, **attributes: str | float | None) -> Markup:
    """One element.

    Args:
        name: of the element.
        content: what is in it.
        attributes: `class_` and `for_` without their underscore, others with hyphens for underscores; None: left out.
    """
    said = "".join(
        f' {_attribute(key)}="{html.escape(_number(value))}"' for key, value in attributes.items() if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{said}/>")
    return Markup(f"<{name}{said}>{joined(*content)}</{name}>")


def joined(*content: Content) -> Markup:
    """Several pieces one after the other."""
    return Markup("".join(_text(it) for it in content))


def _text(content: Content) -> str:
    match content:
        case None:
            return ""
        case Markup():
            return content.text
        case str():
            return html.escape(content)
        case _:
            return "".join(_text(it) for it in content)


def _number(value: str | float) -> str:
    """Coordinates to a tenth of a pixel: nobody sees more, and a page has thousands of them."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def _attribute(key: str) -> str:
    # SVG has a few names in camelCase; they come as they are.
    return key.rstrip("_").replace("_", "-")
