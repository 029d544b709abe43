"""The valid examples of `tests/data/resources` as models."""

from pathlib import Path
from typing import Any, cast

import yaml
from cotune.api.experiment import ExperimentSpec

_FOLDER = Path(__file__).parents[1] / "data" / "resources"


def manifest(kind: str) -> dict[str, Any]:
    return cast("dict[str, Any]", yaml.safe_load((_FOLDER / f"{kind}.yaml").read_text()))


def voice_experiment() -> ExperimentSpec:
    """The story's experiment: 5 x 3 candidates."""
    return ExperimentSpec.model_validate(manifest("GpuAllocationExperiment")["spec"])
