"""What a probe says at its end that has measured a stack well, for tests which play the kubelet."""

import json
from typing import Any

from cotune.measurement.contract import CardConduct

RESULT = {
    "stt.latency.p95": "0.1",
    "stt.wer": "0.05",
    "judge.latency.p95": "0.5",
    "judge.kvCache.concurrency": "3.4",
    "judge.kvCache.tokens": "6976",
    "gpu.utilization": "0.5",
}

CARD = "GPU-00000000-0000-0000-0000-000000000001"
PROCESSES = [{"pid": 1, "leastMiB": 8_000}, {"pid": 2, "leastMiB": 900}]


def result(**conduct: Any) -> str:
    """The last line of a probe that has measured for a minute, years after every pod was started."""
    measured = [{"metric": metric, "value": value, "samples": 200} for metric, value in RESULT.items()]
    card = {"uuid": CARD, "readings": 600, "riseMiB": 9_000, "processes": PROCESSES, "areAllListed": True}
    of_card = {key: value for key, value in conduct.items() if key in CardConduct.model_fields}
    went = {
        "startedAt": "2099-01-01T12:00:00Z",
        "endedAt": "2099-01-01T12:01:00Z",
        "punctuality": [{"component": it, "requests": 200, "late_p99_ms": 1.5} for it in ("judge", "stt")],
        **{key: value for key, value in conduct.items() if key not in of_card},
        "card": card | of_card,
    }
    return json.dumps({"measurements": measured, "conduct": went})
