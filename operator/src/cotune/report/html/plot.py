"""What all pictures share: a frame with axes, lines, and a title for those who do not see it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cotune.report.candidates import Role
from cotune.report.html.markup import Markup, joined, tag
from cotune.report.html.scale import Scale


@dataclass(frozen=True)
class Frame:
    """A picture's size and its room for axes, in pixels."""

    width: float = 520.0
    height: float = 320.0
    left: float = 64.0
    right: float = 16.0
    top: float = 14.0
    bottom: float = 46.0

    @property
    def x(self) -> tuple[float, float]:
        """From where to where the x axis goes."""
        return self.left, self.width - self.right

    @property
    def y(self) -> tuple[float, float]:
        """From the bottom to the top."""
        return self.height - self.bottom, self.top


def picture(frame: Frame, title: str, description: str, *content: Markup) -> Markup:
    """The SVG; title and description are what a screen reader reads."""
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *content,
        viewBox=f"0 0 {frame.width:g} {frame.height:g}",
        role="img",
        aria_label=f"{title}. {description}",
    )


def axes(
    frame: Frame,
    x: Scale,
    y: Scale,
    x_title: str,
    y_title: str,
    y_text: Callable[[float], str] | None = None,
    x_text: Callable[[float], str] | None = None,
) -> Markup:
    """Grid, ticks and titles of both axes; the y axis's title stands above it, where it reads without turning."""
    bottom, top = frame.y
    left, right = frame.x
    vertical = [
        joined(
            tag("line", x1=x(it), x2=x(it), y1=bottom, y2=top, class_="grid"),
            tag("text", (x_text or x.text)(it), x=x(it), y=bottom + 18, text_anchor="middle"),
        )
        for it in x.ticks()
    ]
    horizontal = [
        joined(
            tag("line", x1=left, x2=right, y1=y(it), y2=y(it), class_="grid"),
            tag("text", (y_text or y.text)(it), x=left - 8, y=y(it) + 4, text_anchor="end"),
        )
        for it in y.ticks(5)
    ]
    titles = (
        tag("text", x_title, x=(left + right) / 2, y=frame.height - 6, text_anchor="middle"),
        tag("text", y_title, x=4, y=top - 10, class_="strong"),
    )
    base = tag("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis")
    return joined(vertical, horizontal, base, titles)


def line(points: Sequence[tuple[float, float]], class_: str, title: str | None = None) -> Markup:
    """A line through pixels, with a title for the pointer."""
    where = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    path = tag("path", d=where, class_=class_)
    return path if title is None else tag("g", tag("title", title), path)


def key(entries: Iterable[tuple[Markup, str]]) -> Markup:
    """What the signs mean."""
    return tag("ul", (tag("li", _sign(sign), text) for sign, text in entries), class_="key")


def line_sign(class_: str) -> Markup:
    """A line as it stands in a key."""
    return tag("line", x1=1, x2=25, y1=6, y2=6, class_=f"line {class_}")


def stroke(role: Role) -> str:
    """The class of a role's lines; the baseline's are dashed, so that nobody needs the colour."""
    return f"s-{role}"


def _sign(sign: Markup) -> Markup:
    return tag("svg", sign, viewBox="0 0 26 12", aria_hidden="true")
