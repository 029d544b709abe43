"""Recorded surfaces as a benchmark: what was measured for each candidate on a real card, to be played back at no cost.

tests/data/surfaces/README.md has the schema. A search that is held against a surface asks for candidates as it would of
an experiment, and is charged the seconds that they took.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

Candidate: TypeAlias = Mapping[str, str]
"""Value by parameter."""

_SCHEMA = 1


class SurfaceError(ValueError):
    """The file is no surface, or the candidate is not on it."""


@dataclass(frozen=True)
class Run:
    """One window on a running stack."""

    measurements: Mapping[str, float]
    """By metric, in the units of the resources."""
    seconds: float
    """Warm-up, window and what is around them."""
    window_seconds: float


@dataclass(frozen=True)
class Point:
    """All that is known of one candidate."""

    parameters: Candidate
    runs: tuple[Run, ...]
    """In the order of their repeats; empty where it cannot start."""
    start_seconds: float
    """Until the stack is ready; where it cannot start, until that is known."""
    failure: str | None
    """Which component does not start, and its own words."""


@dataclass(frozen=True)
class Evaluation:
    """What a trial of a candidate would have brought."""

    measurements: Mapping[str, float]
    """Means over the repeats that were drawn; empty for a failure."""
    seconds: float
    """What it cost: a start of the stack, and the windows."""
    repeats: int
    failure: str | None = None

    @property
    def is_failure(self) -> bool:
        """Whether the candidate cannot start."""
        return self.failure is not None


class Surface:
    """One recording, or several of the same parameters."""

    def __init__(self, parameters: Mapping[str, tuple[str, ...]], baseline: Candidate, points: Sequence[Point]) -> None:
        self.parameters = parameters
        """Values by parameter."""
        self.baseline = baseline
        self._points = {_key(it.parameters): it for it in points}

    @classmethod
    def read(cls, *files: Path) -> "Surface":
        """Read recordings of one case; a candidate's repeats in several files are put together.

        Raises:
            SurfaceError: a file has another schema, or other parameters than the first.
            OSError, json.JSONDecodeError: a file cannot be read.
        """
        documents = [json.loads(it.read_text()) for it in files]
        described: list[dict[str, Any]] = documents[0]["case"]["parameters"]
        for file, it in zip(files, documents, strict=True):
            if it.get("schema") != _SCHEMA:
                raise SurfaceError(f"{file}: schema {it.get('schema')}, and this reads {_SCHEMA}")
            if it["case"]["parameters"] != described:
                raise SurfaceError(f"{file}: other parameters than {files[0]}")
        parameters = {it["name"]: tuple(it["values"]) for it in described}
        baseline = {it["name"]: str(it["baseline"]) for it in described}
        return cls(parameters, baseline, _points(documents))

    @property
    def points(self) -> tuple[Point, ...]:
        """Everything, in the order in which it was recorded."""
        return tuple(self._points.values())

    def evaluate(self, candidate: Candidate, fidelity: float, draw: random.Random | None = None) -> Evaluation:
        """What a trial of the candidate gives.

        Args:
            candidate: one value for every parameter.
            fidelity: seconds of windows that are asked for; as many repeats are averaged as that takes, at least one
                and at most all.
            draw: chooses the repeats; without it the first ones are taken.

        Raises:
            SurfaceError: the candidate was not recorded.
        """
        point = self._points.get(_key(candidate))
        if point is None:
            raise SurfaceError(f"{dict(candidate)} was not recorded")
        if point.failure is not None:
            return Evaluation({}, point.start_seconds, 0, point.failure)
        wanted = max(1, min(len(point.runs), round(fidelity / point.runs[0].window_seconds)))
        drawn = draw.sample(point.runs, wanted) if draw else point.runs[:wanted]
        # A metric that one of them could not give is not known.
        names = [name for name in drawn[0].measurements if all(name in it.measurements for it in drawn)]
        means = {name: fmean(it.measurements[name] for it in drawn) for name in names}
        return Evaluation(means, point.start_seconds + sum(it.seconds for it in drawn), wanted)


def _points(documents: Sequence[Mapping[str, Any]]) -> list[Point]:
    runs: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    parameters: dict[tuple[tuple[str, str], ...], Candidate] = {}
    starts: dict[tuple[tuple[str, str], ...], float] = {}
    failures: dict[tuple[tuple[str, str], ...], str] = {}
    speech = _speech_seconds(documents)
    for document in documents:
        window = float(document["case"]["load"]["durationSeconds"])
        llm = {it["id"]: float(it["seconds"]) for it in document["starts"]}
        for it in document["runs"]:
            key = _key(it["candidate"])
            parameters[key] = it["candidate"]
            if it["failure"] is not None:
                failures[key] = f"{it['failure']['component']}: {it['failure']['message']}"
                starts[key] = llm[it["start"]]
                runs.setdefault(key, [])
                continue
            starts.setdefault(key, llm[it["start"]] + speech[it["candidate"]["whisperModel"]])
            found = {one["metric"]: float(one["value"]) for one in it["measurements"]}
            runs.setdefault(key, []).append(Run(found, float(it["seconds"]), window))
    return [Point(it, tuple(runs[key]), starts[key], failures.get(key)) for key, it in parameters.items()]


def _speech_seconds(documents: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """By size, the least of all recordings: what is recorded is when a server was seen ready, and never too early.

    Some recorders looked only after they had done something else. By the servers' own logs they took as long to load
    under either sharing mode.
    """
    found: dict[str, float] = {}
    for it in (one for document in documents for one in document["speechStarts"]):
        size, seconds = str(it["whisperModel"]), float(it["seconds"])
        found[size] = min(seconds, found.get(size, seconds))
    return found


def _key(candidate: Candidate) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(candidate.items()))
