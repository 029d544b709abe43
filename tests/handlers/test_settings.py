from datetime import timedelta
from pathlib import Path

import pytest
from cotune.artifacts.retention import Retention
from cotune.handlers.settings import Settings, SettingsError

REQUIRED = {"COTUNE_NAMESPACE": "cotune-system", "COTUNE_PROBE_IMAGE": "example/probe:1"}


def test_what_is_not_said_has_the_charts_defaults() -> None:
    settings = Settings.from_environment(REQUIRED)

    assert (settings.namespace, settings.probe.name) == ("cotune-system", "example/probe:1")
    assert (settings.drain, settings.start) == (timedelta(seconds=60), timedelta(seconds=600))
    assert (settings.liveness_port, settings.metrics_port) == (8080, 9090)
    assert (settings.artifacts, settings.retention) == (None, Retention())
    assert settings.prometheus is None


def test_records_are_kept_where_and_for_as_long_as_is_said() -> None:
    said = {
        "COTUNE_ARTIFACTS_DIRECTORY": "/artifacts",
        "COTUNE_ARTIFACTS_DAYS": "90",
        "COTUNE_ARTIFACTS_COUNT_PER_EXPERIMENT": "200",
    }

    settings = Settings.from_environment(REQUIRED | said)

    assert (settings.artifacts, settings.retention) == (Path("/artifacts"), Retention(90, 200))


@pytest.mark.parametrize("value", ["0", "-1", "some"])
def test_a_limit_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="COTUNE_ARTIFACTS_DAYS must be a number greater than 0"):
        Settings.from_environment(REQUIRED | {"COTUNE_ARTIFACTS_DAYS": value})


def test_the_address_of_a_prometheus_is_taken_as_it_is() -> None:
    settings = Settings.from_environment(REQUIRED | {"COTUNE_PROMETHEUS_URL": "https://metrics.example:9090/base"})

    assert settings.prometheus == "https://metrics.example:9090/base"


@pytest.mark.parametrize("value", ["prometheus:9090", "file:///etc/passwd", "http://", "http://p:9090/?a=b"])
def test_what_is_no_address_of_a_prometheus_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="COTUNE_PROMETHEUS_URL must be an address"):
        Settings.from_environment(REQUIRED | {"COTUNE_PROMETHEUS_URL": value})


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is not set"):
        Settings.from_environment({key: value for key, value in REQUIRED.items() if key != name})


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", ""])
def test_a_time_that_is_no_time_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="COTUNE_START_SECONDS must be a number greater than 0"):
        Settings.from_environment(REQUIRED | {"COTUNE_START_SECONDS": value})


def test_a_process_is_named_by_its_pod_and_outside_of_one_as_nobody_else() -> None:
    in_a_pod = Settings.from_environment(REQUIRED | {"COTUNE_POD_NAME": "cotune-x", "COTUNE_POD_UID": "12"})
    outside = {Settings.from_environment(REQUIRED).identity for _ in range(2)}

    assert in_a_pod.identity == "cotune-x_12"
    assert len(outside) == 2


def test_a_lease_that_would_let_two_lead_is_refused() -> None:
    said = {"COTUNE_LEASE_SECONDS": "8", "COTUNE_RENEW_DEADLINE_SECONDS": "8"}

    with pytest.raises(SettingsError, match="the deadline must be shorter than the Lease"):
        Settings.from_environment(REQUIRED | said)
