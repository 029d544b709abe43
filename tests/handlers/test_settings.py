from datetime import timedelta

import pytest
from cotune.handlers.settings import Settings, SettingsError

REQUIRED = {"COTUNE_NAMESPACE": "cotune-system", "COTUNE_PROBE_IMAGE": "example/probe:1"}


def test_what_is_not_said_has_the_charts_defaults() -> None:
    settings = Settings.from_environment(REQUIRED)

    assert (settings.namespace, settings.probe.name) == ("cotune-system", "example/probe:1")
    assert (settings.drain, settings.start) == (timedelta(seconds=60), timedelta(seconds=600))
    assert (settings.liveness_port, settings.metrics_port) == (8080, 9090)


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is not set"):
        Settings.from_environment({key: value for key, value in REQUIRED.items() if key != name})


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", ""])
def test_a_time_that_is_no_time_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="COTUNE_START_SECONDS must be a number greater than 0"):
        Settings.from_environment(REQUIRED | {"COTUNE_START_SECONDS": value})
