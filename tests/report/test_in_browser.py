"""The page in a real Chromium: quiet, whole, legible, and nothing in it that a resource has put there."""

import asyncio
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cotune.report.html.page import SECTIONS, as_html
from support.browser import Browser, Page, running_browser
from support.played_experiment import Played
from support.told_report import told, told_without_raw_results

pytestmark = pytest.mark.browser

EVIL = """"><img src=x onerror="document.title='owned'"><script>document.title='owned'</script><style>*{display:none}"""

OVERFLOW = """
[...document.querySelectorAll('body *')]
  .filter(it => !it.closest('.scroll, svg, nav ul') && getComputedStyle(it).position != 'absolute')
  .filter(it => it.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(it => it.tagName + '.' + it.className)
"""

CONTRAST = """
(() => {
  const parse = it => { const found = it.match(/[\\d.]+/g); return found ? found.map(Number) : null; };
  const over = (top, below) => { const a = top[3] ?? 1; return [0, 1, 2].map(i => top[i] * a + below[i] * (1 - a)); };
  const background = it => {
    const layers = [];
    for (let at = it; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour && (colour[3] ?? 1) > 0) { layers.push(colour); if ((colour[3] ?? 1) == 1) break; }
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = it => it.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const weak = {};
  for (const it of document.querySelectorAll('body *')) {
    if (![...it.childNodes].some(node => node.nodeType == 3 && node.textContent.trim())) continue;
    if (['TITLE', 'DESC', 'title', 'desc'].includes(it.tagName)) continue;
    const style = getComputedStyle(it);
    const text = over(parse(it.closest('svg') ? style.fill : style.color), background(it));
    const [high, low] = [light(text), light(background(it))].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) weak[it.tagName + '.' + (it.className.baseVal ?? it.className)] = ratio.toFixed(2);
  }
  return weak;
})()
"""


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with running_browser() as found:
        yield found


@pytest.fixture(scope="module")
def file(voice: Played, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "voice.html"
    path.write_text(as_html(told(voice)), encoding="utf-8")
    return path


def seen(browser: Browser, file: Path, *expressions: str, **window: Any) -> tuple[Page, list[Any]]:
    """The page after it was opened, and the values of the expressions in it."""

    url = file.resolve().as_uri()

    async def look() -> tuple[Page, list[Any]]:
        async with browser.page() as page:
            await page.open(url, **window)
            return page, [await page.evaluate(it) for it in expressions]

    return asyncio.run(look())


def test_the_page_logs_nothing_and_asks_for_nothing_but_itself(browser: Browser, file: Path) -> None:
    page, _ = seen(browser, file)

    assert page.said == []
    assert page.requests == [file.resolve().as_uri()]


def test_every_section_is_there_and_says_something(browser: Browser, file: Path) -> None:
    wanted = ["verdict", *(it.anchor for it in SECTIONS)]

    _, (found, titles) = seen(
        browser,
        file,
        "[...document.querySelectorAll('section')].map(it => [it.id, it.innerText.trim().split('\\n').length])",
        "[...document.querySelectorAll('nav a')].every(it => document.querySelector(it.getAttribute('href')))",
    )

    assert [it for it, _ in found] == wanted
    assert all(lines >= 3 for _, lines in found), found
    assert titles


def test_pictures_are_drawn_where_there_are_data(browser: Browser, file: Path) -> None:
    _, (sizes,) = seen(
        browser,
        file,
        "Object.fromEntries(['pareto', 'parallel', 'latencies', 'memory'].map(it => [it, Math.min(...[..."
        "document.querySelectorAll(`#${it} svg[role=img]`)].map(svg => svg.getBoundingClientRect().height))]))",
    )

    assert all(height >= 200 for height in sizes.values()), sizes


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_stands_beyond_the_right_edge(browser: Browser, file: Path, width: int, dark: bool) -> None:
    _, (whole, beyond) = seen(browser, file, "document.documentElement.scrollWidth", OVERFLOW, width=width, dark=dark)

    assert beyond == []
    assert whole <= width


def test_nothing_stands_beyond_the_edge_of_a_sheet_of_paper(browser: Browser, file: Path) -> None:
    _, (whole,) = seen(browser, file, "document.documentElement.scrollWidth", width=718, media="print")

    assert whole <= 718, "A4, upright"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_has_the_contrast_of_wcag_aa(browser: Browser, file: Path, dark: bool) -> None:
    _, (weak,) = seen(browser, file, CONTRAST, dark=dark)

    assert weak == {}


def test_every_picture_and_table_says_what_it_is(browser: Browser, file: Path) -> None:
    _, (pictures, tables) = seen(
        browser,
        file,
        "[...document.querySelectorAll('svg:not([aria-hidden])')].filter(it => !['title', 'desc'].every("
        "name => it.querySelector(`:scope > ${name}`)?.textContent)).length",
        "[...document.querySelectorAll('table')].filter(it => !it.caption?.textContent).length",
    )

    assert (pictures, tables) == (0, 0)


def test_what_is_not_known_is_said_and_not_drawn(browser: Browser, voice: Played, tmp_path: Path) -> None:
    path = tmp_path / "bare.html"
    path.write_text(as_html(told_without_raw_results(voice)), encoding="utf-8")

    _, (texts, pictures) = seen(
        browser,
        path,
        "['latencies', 'memory'].map(it => document.getElementById(it).innerText)",
        "document.querySelectorAll('#latencies svg, #memory svg').length",
    )

    assert pictures == 0
    assert all("--artifacts" in it for it in texts)


def test_nothing_that_a_resource_says_becomes_a_part_of_the_page(
    browser: Browser, voice: Played, tmp_path: Path
) -> None:
    report = told(voice)
    evil = replace(
        report,
        name=EVIL,
        verdict=replace(report.verdict, sentence=EVIL, notes=(EVIL,)),
        table=replace(report.table, rows=tuple(replace(it, name=EVIL, reason=EVIL) for it in report.table.rows)),
        invalid=tuple(replace(it, reason=EVIL, message=EVIL) for it in report.invalid),
    )
    path = tmp_path / "evil.html"
    path.write_text(as_html(evil), encoding="utf-8")

    page, (elements, title, shown) = seen(
        browser,
        path,
        "document.querySelectorAll('script, img, section style').length",
        "document.title",
        "document.querySelector('#verdict h2').innerText",
    )

    assert (elements, title, shown) == (0, f"{EVIL}: cotune report", EVIL)
    assert page.said == []
    assert len(page.requests) == 1
