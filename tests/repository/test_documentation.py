"""What the documentation names exists, and what the code may say is explained."""

import ast
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest
import yaml
from cotune.api import reference
from cotune.api.crds import RESOURCES
from cotune.api.experiment import ExperimentPhase, Outcome
from cotune.api.profile import ProfilePhase
from cotune.api.trial import TrialPhase
from cotune.fitness.ranking import Verdict
from cotune.planning.vllm import Refusal
from cotune.trials.root_cause import Cause

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "operator" / "src" / "cotune"
TROUBLESHOOTING = REPOSITORY / "docs" / "how-to" / "troubleshoot.md"
SPECS = {it.kind: it.spec for it in RESOURCES}

_SAYS_A_REASON = {
    "Breach", "Ending", "ExperimentStep", "Judgement", "NoBridge", "Obstacle", "PodFailure", "QuiesceStep", "Refusal",
    "Step", "Waiting", "_failed", "_invalid", "_stalled", "condition", "tell",
}  # fmt: skip
_REASON = re.compile(r"[A-Z][a-z]+([A-Z][a-z]+)+|Forbidden|Paused")
_CONDITIONS_AND_ACTIONS = {"MakeProfile"}
_RULE_OF_MAKE = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)


def _pages() -> "list[Path]":
    folders = [it for it in REPOSITORY.iterdir() if it.is_dir() and it.name != "build" and not it.name.startswith(".")]
    return sorted([*REPOSITORY.glob("*.md"), *(page for it in folders for page in it.rglob("*.md"))])


def _prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> "set[str]":
    titles = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", it.lower()).replace(" ", "-") for it in titles}


def _blocks(page: Path, language: str) -> "list[str]":
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def _resources() -> "Iterator[tuple[str, str, dict[str, object]]]":
    for page in _pages():
        for block in _blocks(page, "yaml"):
            for document in yaml.safe_load_all(block):
                if isinstance(document, dict) and document.get("kind") in SPECS:  # pyright: ignore[reportUnknownMemberType]
                    yield str(page.relative_to(REPOSITORY)), document["kind"], document["spec"]


def _reasons() -> "set[str]":
    """The reasons that the code states: literals where one is stated, and members of the enumerations of reasons."""
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in _SAYS_A_REASON:
                found |= {
                    it.value
                    for it in node.args
                    if isinstance(it, ast.Constant) and isinstance(it.value, str) and _REASON.fullmatch(it.value)
                }
    kinds: tuple[type[StrEnum], ...] = (Cause, Outcome, Refusal, Verdict)
    return (found | {str(it) for kind in kinds for it in kind}) - _CONDITIONS_AND_ACTIONS


@pytest.mark.parametrize("page", _pages(), ids=lambda it: str(it.relative_to(REPOSITORY)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken: list[str] = []
    text = re.sub(r"`[^`\n]*`", "", _prose(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in _anchors(file)):
            broken.append(target)

    assert not broken


@pytest.mark.parametrize("page", _pages(), ids=lambda it: str(it.relative_to(REPOSITORY)))
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(_RULE_OF_MAKE.findall((REPOSITORY / "Makefile").read_text()))
    named = set(re.findall(r"(?:`|^[#$] )make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))

    # Another work in progress: the README keeps its place.
    assert named - targets <= {"demo-real"}


@pytest.mark.parametrize("page", _pages(), ids=lambda it: str(it.relative_to(REPOSITORY)))
def test_files_that_are_named_exist(page: Path) -> None:
    folders = "bench|crds|demo|docs|examples|helm|images|local-cluster|operator/src|requirements|simulation|tests"
    named = set(re.findall(rf"`((?:{folders})/[^`\s:]*)`", page.read_text()))

    assert not {it for it in named if not any(REPOSITORY.glob(it.rstrip("/")))}


@pytest.mark.parametrize("page", _pages(), ids=lambda it: str(it.relative_to(REPOSITORY)))
def test_fields_that_are_named_exist(page: Path) -> None:
    """A field by its whole path, of one of our kinds; `spec.replicas` is a Deployment's."""
    schema = "".join(reference.rendered().values()).replace("[]", "")
    known = set(re.findall(r"^\| `((?:spec|status)[^`]*)` \|", schema, re.MULTILINE)) | {"spec.replicas"}
    named = set(re.findall(r"`((?:spec|status)(?:\.[a-zA-Z]+)+)`", page.read_text()))

    assert not named - known


def test_metrics_of_the_operator_are_listed() -> None:
    source = "".join(it.read_text() for it in (SOURCE / "handlers").glob("*.py"))
    registered = set(re.findall(r"(?:Counter|Histogram|Gauge)\(\s*\"(cotune_\w+)\"", source))
    listed = set(re.findall(r"^\| `(cotune_\w+)` \|", (REPOSITORY / "docs/how-to/read-results.md").read_text(), re.M))

    assert registered
    assert registered == listed


@pytest.mark.parametrize(
    ("page", "kind", "spec"), [pytest.param(*it, id=f"{it[0]}-{it[1]}-{n}") for n, it in enumerate(_resources())]
)
def test_resources_in_the_documentation_are_valid(page: str, kind: str, spec: "dict[str, object]") -> None:
    SPECS[kind].model_validate(spec)


def test_every_reason_is_explained() -> None:
    explained = set(re.findall(r"`([A-Za-z]+)`", TROUBLESHOOTING.read_text()))

    assert len(_reasons()) > 30
    assert not _reasons() - explained


def test_no_reason_is_explained_that_nobody_states() -> None:
    first_cells = re.findall(r"^\| (`[^|]+) \|", TROUBLESHOOTING.read_text(), re.MULTILINE)
    explained = {it for cell in first_cells for it in re.findall(r"`([A-Za-z]+)`", cell)}
    stated = "\n".join(it.read_text() for it in SOURCE.rglob("*.py"))

    assert len(explained) > 30
    assert not {it for it in explained if f'"{it}"' not in stated and it.removeprefix("ComponentEnded") not in stated}


@pytest.mark.parametrize("phases", [ExperimentPhase, TrialPhase, ProfilePhase])
def test_every_phase_that_a_resource_reaches_is_in_the_concepts(phases: "type[StrEnum]") -> None:
    text = (REPOSITORY / "docs" / "concepts.md").read_text()
    of_experiments_only = {"Planning", "Running", "Validating"}

    assert not {str(it) for it in phases if str(it) not in text} - of_experiments_only
