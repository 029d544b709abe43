import json
from pathlib import Path

import pytest
from cotune.measurement.corpus import CorpusError, read_corpus
from cotune.measurement.word_error_rate import Heard, word_error_rate
from cotune_simulation.speech import TRANSCRIPTS, write_corpus


def test_a_corpus_is_read_by_name_with_lengths_and_transcripts(tmp_path: Path) -> None:
    write_corpus(tmp_path)

    clips = read_corpus(tmp_path)

    assert {it.name: it.transcript for it in clips} == TRANSCRIPTS
    assert [it.name for it in clips] == sorted(TRANSCRIPTS)
    assert {it.seconds for it in clips} == {1.0}
    assert clips[0].audio == (tmp_path / clips[0].name).read_bytes()


def test_clips_of_the_same_name_in_two_folders_are_two(tmp_path: Path) -> None:
    write_corpus(tmp_path / "one")
    write_corpus(tmp_path / "two")
    names = [f"{folder}/synthetic-1.wav" for folder in ("one", "two")]
    (tmp_path / "transcripts.json").write_text(json.dumps(dict.fromkeys(names, "yes")))

    assert [it.name for it in read_corpus(tmp_path)] == names


@pytest.mark.parametrize("name", ["../text.wav", "/etc/text.wav", "a/../../text.wav"])
def test_a_clip_outside_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "transcripts.json").write_text(json.dumps({name: "yes"}))

    with pytest.raises(CorpusError, match="names a clip outside"):
        read_corpus(tmp_path)


@pytest.mark.parametrize(
    ("transcripts", "words"),
    [
        (None, "transcripts.json"),
        ("[]", "transcripts.json"),
        ("{}", "names no clip"),
        (json.dumps({"missing.wav": "yes"}), "missing.wav"),
        (json.dumps({"text.wav": "yes"}), "text.wav"),
    ],
)
def test_what_is_no_corpus_is_refused_with_the_file_that_is_wrong(
    tmp_path: Path, transcripts: str | None, words: str
) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    if transcripts is not None:
        (tmp_path / "transcripts.json").write_text(transcripts)

    with pytest.raises(CorpusError, match=words):
        read_corpus(tmp_path)


def test_spelling_case_and_marks_are_no_errors() -> None:
    assert word_error_rate([Heard("Turn on the COLOUR lights, please!", "turn on the color lights please")]) == 0.0


def test_the_rate_is_over_the_words_of_the_whole_corpus() -> None:
    assert (
        word_error_rate([Heard("yes", "no"), Heard("turn on the kitchen lights", "turn on the kitchen lights")])
        == 1 / 6
    )


def test_silence_that_was_heard_as_words_has_no_rate() -> None:
    assert word_error_rate([Heard("", "thank you")]) is None
    assert word_error_rate([]) is None


def test_nothing_heard_is_all_wrong() -> None:
    assert word_error_rate([Heard("turn on the lights", "")]) == 1.0
