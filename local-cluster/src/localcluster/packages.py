"""Debian packages the local cluster needs, installed only when a program of theirs is missing."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.progress import step

NODE_PROGRAMS: Mapping[str, str] = {
    "ip": "iproute2",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "iptables": "iptables",
}
CONTROL_PLANE_PROGRAMS: Mapping[str, str] = {"ip": "iproute2"}
IMAGE_PROGRAMS: Mapping[str, str] = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}

_LOCK_TIMEOUT = "DPkg::Lock::Timeout=300"


def ensure(programs: Mapping[str, str]) -> None:
    """Install the packages whose programs (a name on the path, or an absolute path) are missing.

    :raises LocalClusterError: installing failed, or this is no Debian.
    """
    missing = sorted({package for program, package in programs.items() if not _exists(program)})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise LocalClusterError(f"install {', '.join(missing)}: this machine has no apt-get to do it with")
    with step(f"installing {', '.join(missing)}"):
        _apt_get("update")
        _apt_get("install", "--yes", "--no-install-recommends", *missing)


def _exists(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else shutil.which(program) is not None


def _apt_get(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-qq", "-o", _LOCK_TIMEOUT, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise LocalClusterError(f"{' '.join(command)} failed: {''.join(reason)}")
