"""HTML and Markdown from the same report; how they look is held in a browser."""

import re
from dataclasses import replace

import pytest
from cotune.report.html.markup import Markup, tag
from cotune.report.html.page import SECTIONS, as_html
from cotune.report.html.scale import Scale, around
from cotune.report.markdown import as_markdown
from cotune.report.units import change, figure, number, share
from support.played_experiment import Played, played
from support.told_report import told, told_without_raw_results


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "<b>", Markup("<i></i>"), title='"&').text == '<p title="&quot;&amp;">&lt;b&gt;<i></i></p>'
    assert tag("meta", name="x", content=None).text == '<meta name="x"/>'


def test_the_page_has_no_script_and_names_nothing_outside_of_itself(voice: Played) -> None:
    page = as_html(told(voice))

    assert "default-src &#x27;none&#x27;" in page
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(|https?://", page)


def test_both_tell_every_section_and_the_verdict(voice: Played) -> None:
    report = told(voice)
    markdown = as_markdown(report)

    assert len(re.findall(r"^## ", markdown, re.MULTILINE)) == len(SECTIONS)
    assert "**judgeMemory=0.60 whisperModel=tiny is better than what runs today" in markdown
    assert all(it.name in markdown for it in report.table.rows)


def test_every_row_of_a_table_in_markdown_has_as_many_cells_as_its_head(voice: Played) -> None:
    report = told(voice)
    noisy = replace(report, invalid=tuple(replace(it, message="a | b\n| c |") for it in report.invalid))

    tables = re.findall(r"(?:^\|.*\n)+", as_markdown(noisy), re.MULTILINE)

    assert len(tables) > 12
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_markdown_of_a_malicious_message_is_text(voice: Played) -> None:
    report = told(voice)
    evil = "<script>alert(1)</script> [x](javascript:alert(1)) **b** `c`"

    markdown = as_markdown(replace(report, invalid=tuple(replace(it, message=evil) for it in report.invalid)))

    assert "\\<script\\>" in markdown
    assert "\\[x\\](javascript" in markdown


def test_a_command_cannot_end_its_own_fence(voice: Played) -> None:
    report = told(voice)
    steps = tuple(replace(it, command="a\n```\nb") for it in report.rollout.instructions)

    markdown = as_markdown(replace(report, rollout=replace(report.rollout, instructions=steps)))

    assert "````shell\na\n```\nb\n````" in markdown


@pytest.mark.parametrize("render", [as_html, as_markdown])
def test_what_is_not_known_is_said(voice: Played, render: "object") -> None:
    assert callable(render)

    bare, running = str(render(told_without_raw_results(voice))), str(render(told(played(stop_after=3))))

    assert bare.count("give the folder of the raw results with --artifacts") == 2
    assert "No candidate was run again beside the baseline" in running
    assert "Not decided yet" in running


def test_a_challenger_that_is_not_better_is_called_no_winner(alike: Played) -> None:
    report = told(alike)

    for text in (as_html(report), as_markdown(report)):
        assert "Challenger against baseline" in text
        assert "winner" not in text.lower().replace("voice-winner", "")


def test_an_experiment_without_a_single_trial_has_a_page() -> None:
    report = told(played(stop_after=0))

    assert "There is no trial yet." in as_html(report)
    assert "There is no trial yet." in as_markdown(report)


@pytest.mark.parametrize(
    ("low", "high", "is_logarithmic", "texts"),
    [
        (0.0, 1.0, False, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.52, 0.65, False, ["0.525", "0.550", "0.575", "0.600", "0.625", "0.650"]),
        (9_700.0, 12_300.0, False, ["10,000", "10,500", "11,000", "11,500", "12,000"]),
        (18.0, 1_100.0, True, ["20", "50", "100", "200", "500", "1,000"]),
        (0.3, 40.0, True, ["0.5", "1", "2", "5", "10", "20"]),
        (552.0, 1_244.0, True, ["600", "800", "1,000", "1,200"]),
    ],
)
def test_ticks_are_round_and_written_alike(low: float, high: float, is_logarithmic: bool, texts: list[str]) -> None:
    scale = Scale(low, high, 0.0, 100.0, is_logarithmic)

    assert [scale.text(it) for it in scale.ticks()] == texts
    assert [scale(low), scale(high)] == [0.0, 100.0]


def test_one_value_alone_stands_within_its_axis() -> None:
    scale = around([5.0], 0.0, 100.0)

    assert 0.0 < scale(5.0) < 100.0


def test_figures_have_units_signs_and_no_more_digits_than_say_something() -> None:
    gap = "\N{NO-BREAK SPACE}"

    assert figure("stt.latency.p95", 54.321) == f"54.3{gap}ms"
    assert figure("stt.wer", 0.0371) == f"3.71{gap}%"
    assert figure("stability", 1.0) == "1"
    assert figure("judge.kvCache.tokens", 29_440) == f"29,440{gap}tokens"
    assert change("stt.wer", -0.01) == f"−1{gap}points"
    assert change("gpu.oomEvents", 0.0) == "0"
    assert (share(-0.892), share(0.0)) == (f"−89.2{gap}%", f"0{gap}%")
    assert number(0.00123) == "0.00123"
