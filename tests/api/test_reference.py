"""The reference says what the models say."""

import re
import sys
from pathlib import Path

import pytest
from cotune.api import reference
from cotune.api.crds import RESOURCES
from cotune.api.generated import write_or_check


def _fields(page: str) -> "list[str]":
    return re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)


def test_every_kind_has_a_page_and_stands_in_the_index() -> None:
    pages = reference.rendered()

    assert set(pages) == {"README.md"} | {f"{it.kind.lower()}.md" for it in RESOURCES}
    assert all(f"({it.kind.lower()}.md)" in pages["README.md"] for it in RESOURCES)


@pytest.mark.parametrize(
    "field",
    [
        "spec.gpu.product",
        "spec.stack.components[].dependsOn",
        "spec.parameters[].range.step",
        "spec.profileTemplate.rollout.stages[].approval",
        "status.conditions[].observedGeneration",
    ],
)
def test_nested_fields_have_a_row_of_their_own(field: str) -> None:
    assert field in _fields(reference.rendered()["gpuallocationexperiment.md"])


def test_a_row_gives_type_default_bounds_and_what_the_model_says() -> None:
    page = reference.rendered()["gpuprofile.md"]

    assert (
        "| `spec.rollout.stages[].readinessDeadlineSeconds` | integer | `300` | 1 to 86400 | "
        "How long all pods may take to be ready before the stage is rolled back. |"
    ) in page


def test_every_rule_of_a_kind_is_listed_with_its_path() -> None:
    page = reference.rendered()["gpuallocationexperiment.md"]

    assert "- `spec.parameters[].baseline`: baseline must be one of values" in page
    assert "- `spec`: an experiment's spec is immutable after its first trial" in page
    assert "- `metadata.name`: the name must be a label" in page


def test_no_cell_breaks_its_table() -> None:
    for name, page in reference.rendered().items():
        for line in page.splitlines():
            if line.startswith("| `"):
                assert len(re.findall(r"(?<!\\)\|", line)) == 6, f"{name}: {line}"


def test_the_check_fails_for_a_page_that_was_edited_or_is_of_no_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["reference", *arguments, str(tmp_path)])
        return write_or_check(reference.rendered(), "*.md", "docs")

    assert (run(), run("--check")) == (0, 0)

    (tmp_path / "gputrial.md").write_text("edited")
    (tmp_path / "gpunothing.md").write_text("left over")

    assert run("--check") == 1
    assert "gpunothing.md, gputrial.md differ" in capsys.readouterr().err
