"""What the operator is told by its Deployment's environment."""

import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cotune.artifacts.retention import Retention
from cotune.cluster.election import Timing
from cotune.trials.probe_pod import ProbeImage


class SettingsError(ValueError):
    """A variable is missing or makes no sense; the message names it."""


@dataclass(frozen=True)
class Settings:
    """The operator's settings; the chart's values explain them."""

    namespace: str
    """Where the operator runs and keeps the Leases of the cards."""
    probe: ProbeImage
    drain: timedelta
    """How long a card may take to be drained before its trial is Invalid."""
    start: timedelta
    """How long a stack may take until all of its components are ready."""
    log_level: str
    liveness_port: int
    metrics_port: int
    node_agent: str | None = None
    """Host name and port behind which the agents of all nodes are found; None: there are none."""
    artifacts: Path | None = None
    """Where the records of trials are kept; None: nowhere."""
    retention: Retention = field(default_factory=Retention)
    """How many of them."""
    prometheus: str | None = None
    """The address of the Prometheus that the gates of stages ask; None: there is none."""
    identity: str = ""
    """Of this process in the election: the pod's name and UID, `name_uid`; outside of a pod made up."""
    lease: str = "cotune-leader"
    """Name of the Lease that the leader holds, in `namespace`."""
    election: Timing = field(default_factory=Timing)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the variables.

        Raises:
            SettingsError: one is missing, is not a positive number of seconds, or the Lease's times do not go together.
        """
        return cls(
            namespace=_required(environment, "COTUNE_NAMESPACE"),
            probe=ProbeImage(
                _required(environment, "COTUNE_PROBE_IMAGE"),
                environment.get("COTUNE_PROBE_IMAGE_PULL_POLICY", "IfNotPresent"),
            ),
            drain=timedelta(seconds=_positive(environment, "COTUNE_DRAIN_SECONDS", 60)),
            start=timedelta(seconds=_positive(environment, "COTUNE_START_SECONDS", 600)),
            log_level=environment.get("COTUNE_LOG_LEVEL", "INFO").upper(),
            identity=_identity(environment),
            lease=environment.get("COTUNE_LEASE", "cotune-leader"),
            election=_timing(environment),
            liveness_port=int(_positive(environment, "COTUNE_LIVENESS_PORT", 8080)),
            metrics_port=int(_positive(environment, "COTUNE_METRICS_PORT", 9090)),
            node_agent=environment.get("COTUNE_NODE_AGENT") or None,
            artifacts=Path(folder) if (folder := environment.get("COTUNE_ARTIFACTS_DIRECTORY", "")) else None,
            retention=Retention(
                days=_limit(environment, "COTUNE_ARTIFACTS_DAYS"),
                count_per_experiment=_limit(environment, "COTUNE_ARTIFACTS_COUNT_PER_EXPERIMENT"),
            ),
            prometheus=_address(environment, "COTUNE_PROMETHEUS_URL"),
        )


def _identity(environment: Mapping[str, str]) -> str:
    name, uid = environment.get("COTUNE_POD_NAME"), environment.get("COTUNE_POD_UID")
    return f"{name}_{uid}" if name and uid else f"{socket.gethostname()}_{uuid.uuid4()}"


def _timing(environment: Mapping[str, str]) -> Timing:
    defaults = Timing()
    try:
        return Timing(
            duration=_positive(environment, "COTUNE_LEASE_SECONDS", defaults.duration),
            renew_deadline=_positive(environment, "COTUNE_RENEW_DEADLINE_SECONDS", defaults.renew_deadline),
            retry=_positive(environment, "COTUNE_RETRY_SECONDS", defaults.retry),
        )
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _required(environment: Mapping[str, str], name: str) -> str:
    if not (value := environment.get(name, "")):
        raise SettingsError(f"{name} is not set")
    return value


def _address(environment: Mapping[str, str], name: str) -> str | None:
    if not (value := environment.get(name)):
        return None
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise SettingsError(f"{name} must be an address such as http://prometheus.monitoring.svc:9090, not {value!r}")
    return value


def _limit(environment: Mapping[str, str], name: str) -> int | None:
    return int(_positive(environment, name, 1)) if environment.get(name) else None


def _positive(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise SettingsError(f"{name} must be a number greater than 0, not {text!r}")
    return value
