"""What a probe says in the end, played by a test."""

import json
from collections.abc import Mapping
from typing import Any

from cotune.measurement.contract import CardConduct

CARD = "GPU-00000000-0000-0000-0000-000000000001"
PROCESSES = [{"pid": 1, "leastMiB": 8_000}, {"pid": 2, "leastMiB": 900}, {"pid": 3, "leastMiB": 700}]


def last_line(values: Mapping[str, str], node: Mapping[str, Any] | None = None, **conduct: Any) -> str:
    """The result of a probe that has measured well for a minute, years after every pod was started.

    Args:
        values: metric to value, each of 200 samples.
        node: what the node agent has seen; None: it was not there.
        conduct: fields of `Conduct` or `CardConduct` that are otherwise.
    """
    measured = [{"metric": metric, "value": value, "samples": 200} for metric, value in values.items()]
    card = {"uuid": CARD, "readings": 600, "riseMiB": 9_600, "processes": PROCESSES, "areAllListed": True}
    of_card = {key: value for key, value in conduct.items() if key in CardConduct.model_fields}
    went = {
        "startedAt": "2099-01-01T12:00:00Z",
        "endedAt": "2099-01-01T12:01:00Z",
        "punctuality": [{"component": it, "requests": 200, "late_p99_ms": 1.5} for it in ("judge", "stt")],
        **{key: value for key, value in conduct.items() if key not in of_card},
        "card": card | of_card,
    }
    return json.dumps({"measurements": measured, "conduct": went, "node": node})


def node_report(*held: tuple[str, str, float], **more: Any) -> dict[str, Any]:
    """What a node agent has seen over a minute.

    Args:
        held: uid of the pod, id of the container and MiB, of each tenant.
        more: fields of `NodeReport` that are otherwise.
    """
    tenants = [
        {
            "pod": pod,
            "containers": [container],
            "processes": [{"pid": 4711 + number, "name": "python3", "container": container}],
            "leastMiB": mib,
            "mostMiB": mib + 0.5,
        }
        for number, (pod, container, mib) in enumerate(held)
    ]
    return {"node": "lab", "card": CARD, "readings": 600, "tenants": tenants, "kills": [], **more}
