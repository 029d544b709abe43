"""Debian packages the local cluster needs, installed only when a program of theirs is missing."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from localcluster.errors import LocalClusterError
from localcluster.locations import Cache
from localcluster.locks import held
from localcluster.progress import step

NODE_PROGRAMS: Mapping[str, str] = {
    "ip": "iproute2",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "iptables": "iptables",
}
CONTROL_PLANE_PROGRAMS: Mapping[str, str] = {"ip": "iproute2"}
IMAGE_PROGRAMS: Mapping[str, str] = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}

UNPACKED_PROGRAMS: Mapping[str, str] = {"prometheus": "usr/bin/prometheus"}
"""Package to its program, of packages whose installation would start a service."""

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


def unpacked(package: str, cache: Cache) -> Path:
    """The program of a package, unpacked once beside the cache's other programs: nothing is installed.

    :raises LocalClusterError: there is no such package, or this is no Debian.
    """
    target = cache.programs / f"debian-{package}"
    program = target / UNPACKED_PROGRAMS[package]
    if program.exists():
        return program
    if shutil.which("apt-get") is None:
        raise LocalClusterError(f"the program of Debian's package {package} is wanted: this machine has no apt-get")
    with held(cache.programs / f".debian-{package}.lock"):
        if program.exists():  # Another command has unpacked it while this one waited.
            return program
        with step(f"unpacking {package}"), TemporaryDirectory(dir=cache.programs) as folder:
            try:
                _run(["apt-get", "-qq", "download", package], Path(folder))
            except LocalClusterError:  # Its lists may be as old as the machine.
                _apt_get("update")
                _run(["apt-get", "-qq", "download", package], Path(folder))
            (archive,) = Path(folder).glob("*.deb")
            _run(["dpkg-deb", "--extract", str(archive), "unpacked"], Path(folder))
            shutil.rmtree(target, ignore_errors=True)
            (Path(folder) / "unpacked").rename(target)
    return program


def _exists(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else shutil.which(program) is not None


def _apt_get(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "-qq", "-o", _LOCK_TIMEOUT, *arguments], environment=environment)


def _run(command: list[str], folder: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise LocalClusterError(f"{' '.join(command)} failed: {''.join(reason)}")
