"""Reports of played experiments."""

import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache

from cotune.measurement.contract import ProbeResult
from cotune.report.raw import NoRawResults
from cotune.report.report import Report, report
from cotune.report.resources import Experiment, Trial, find_experiment

from support.played_experiment import NAME, Played

MADE_AT = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


class PlayedResults:
    """The raw results of a played experiment, as a store would give them."""

    def __init__(self, records: Mapping[str, bytes]) -> None:
        self._records = records

    def of(self, trial: Trial) -> ProbeResult | None:
        content = self._records.get(trial.artifact or "")
        return ProbeResult.model_validate(json.loads(gzip.decompress(content))["result"]) if content else None


def experiment(played: Played) -> Experiment:
    return find_experiment(played.bodies, NAME)


@cache
def told(played: Played) -> Report:
    """With all raw results."""
    return report(experiment(played), PlayedResults(played.records), MADE_AT)


def told_without_raw_results(played: Played) -> Report:
    return report(experiment(played), NoRawResults(), MADE_AT)
