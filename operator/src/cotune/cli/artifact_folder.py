"""Raw results in a folder of the artifact store: gzip files of JSON, each named by its digest."""

import gzip
import json
import re
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from cotune.measurement.contract import ProbeResult
from cotune.report.resources import Trial

_DIGEST = re.compile(r"[0-9a-f]{64}")


class ArtifactError(ValueError):
    """A file that should be a raw result is none; the message is one line."""


class ArtifactFolder:
    """Reads by what the trial's status says of its artifact; a file that is not there is a result that is not known."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ArtifactError(f"{folder} is no folder")
        self._folder = folder

    def of(self, trial: Trial) -> ProbeResult | None:
        """The whole result of a trial.

        Raises:
            ArtifactError: the file is damaged.
        """
        found = _DIGEST.search(trial.artifact or "")
        path = self._files.get(found.group()) if found is not None else None
        if path is None:
            return None
        try:
            record = cast("dict[str, Any]", json.loads(gzip.decompress(path.read_bytes())))
            return ProbeResult.model_validate(record["result"], extra="ignore")
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, ValidationError) as error:
            raise ArtifactError(f"{path} is no raw result: {' '.join(str(error).split())[:200]}") from error

    @cached_property
    def _files(self) -> "dict[str, Path]":
        """By digest, in whatever folders the store has put them."""
        paths = (it for it in self._folder.rglob("*") if it.is_file())
        named = ((_DIGEST.search("".join(it.relative_to(self._folder).parts)), it) for it in paths)
        return {found.group(): it for found, it in named if found is not None}
