"""Raw results in a folder of the artifact store: gzip files of JSON, each named by the SHA-256 of its bytes."""

import gzip
import hashlib
import json
import re
import zlib
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from cotune.measurement.contract import ProbeResult
from cotune.report.raw import RawResultError
from cotune.report.resources import Trial

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class ArtifactFolder:
    """Files `ab/abcd....json.gz`, or all of them in one folder; one that is not there is a result that is not known."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise RawResultError(f"{folder} is no folder")
        self._folder = folder

    def of(self, trial: Trial) -> ProbeResult | None:
        """The whole result of a trial.

        Raises:
            RawResultError: the file is damaged, or is not the one that the trial names.
        """
        found = _DIGEST.fullmatch(trial.artifact or "")
        if found is None:
            return None
        name = f"{found[1]}.json.gz"
        path = next((it for it in (self._folder / found[1][:2] / name, self._folder / name) if it.exists()), None)
        if path is None:
            return None
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != found[1]:
                raise RawResultError(f"{path} has changed since it was stored: its bytes are not those of its name")
            record = cast("dict[str, Any]", json.loads(gzip.decompress(content)))
            said = record.get("result")
            return ProbeResult.model_validate(said, extra="ignore") if said is not None else None
        except (OSError, EOFError, zlib.error, AttributeError, json.JSONDecodeError, ValidationError) as error:
            raise RawResultError(f"{path} is no raw result: {' '.join(str(error).split())[:200]}") from error
