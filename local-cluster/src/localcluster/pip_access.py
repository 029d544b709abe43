"""How pip inside a build reaches the index that pip on the host reaches.

The host's settings are handed to the build as a mounted configuration file, with the files they name mounted beside it
and a shared download cache. Nothing of it becomes part of the image.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_SETTINGS_WITH_PATHS = {"cert": "/run/host-pip/certificates.crt", "find-links": "/run/host-pip/wheels"}
_HOST_ONLY_SETTINGS = frozenset(
    {"break-system-packages", "cache-dir", "prefix", "require-virtualenv", "target", "user"}
)


@dataclass(frozen=True)
class Mount:
    """One read-only mount into a build."""

    source: Path
    target: str


def parse_settings(listing: str) -> dict[str, str]:
    """The effective settings in the output of `pip config list`; the environment beats files, as in pip.

    Lines look like `global.index-url='https://...'` or `:env:.timeout='60'`; sections of single commands
    are folded into the global one.
    """
    settings: dict[str, str] = {}
    for from_environment in (False, True):
        for line in listing.splitlines():
            name, separator, value = line.partition("=")
            if separator and name.startswith(":env:") is from_environment:
                settings[name.rpartition(".")[2]] = value.strip().strip("'\"").replace("\\n", "\n")
    return settings


def translate(settings: dict[str, str]) -> tuple[str, list[Mount]]:
    """The pip.conf for a build, and the mounts it refers to.

    Paths that do not exist on the host, and settings that only make sense there, are left out.
    """
    mounts: list[Mount] = []
    translated: dict[str, str] = {}
    for name, value in settings.items():
        if name in _HOST_ONLY_SETTINGS:
            continue
        if name in _SETTINGS_WITH_PATHS and "://" not in value:
            if not Path(value).exists():
                continue
            mounts.append(Mount(Path(value), _SETTINGS_WITH_PATHS[name]))
            translated[name] = _SETTINGS_WITH_PATHS[name]
        else:
            translated[name] = value
    lines = [f"{name} = {_continued(value)}" for name, value in translated.items()]
    return "\n".join(["[global]", *lines, ""]), mounts


def host_settings() -> dict[str, str]:
    """What pip is configured to do on this host; empty without pip."""
    for python in (sys.executable, "python3"):  # The virtual environment in use may have been made without pip.
        command = [python, "-m", "pip", "config", "list"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return parse_settings(done.stdout)
    return {}


def _continued(value: str) -> str:
    """A value of several lines, as the configuration format wants it."""
    return value.replace("\n", "\n    ")
