"""Images out of what the machine has: its own file tree below, cotune, the servers and their models above.

Nothing is pulled and nothing is packed: see `localcluster.folder_images`. All images are the same layers with another
command. The driver's libraries are in the lower layer, where a container toolkit would mount them.
"""

import compileall
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from localcluster.folder_images import FolderLayer, folder_image, folder_of_layer, register
from localcluster.locations import Cache
from localcluster.oci import Image

MACHINE, STACK = FolderLayer("machine"), FolderLayer("stack")
_COPIED = ("/etc", "/opt/torch", sys.prefix, sys.base_prefix)
"""Beside /usr: with the Python that runs this. What is mounted below them is not followed."""
_LEFT_OUT = ("local", "src", "games")
"""Of /usr."""
_LEFT_OUT_LOCAL = ("cuda", "nvidia")
"""Of /usr/local, by how a name begins: compilers, and the driver, which is a mount of its own."""
_DRIVER = Path("/usr/local/nvidia")
_EMPTY = ("dev", "proc", "sys", "run", "tmp", "var", "var/tmp", "var/run", "root", "home", "mnt", "files")
_LINKS = ("bin", "sbin", "lib", "lib64")
_USER = "65532:65532"
_PROGRAMS = "/opt/code/bin"
"""The machine's Python by both of its names: manifests say `python`."""


def make_layers(cache: Cache, scratch: Path, code: Path) -> None:
    """Both folders, by hard links where the file system is the same; nothing to do where they are there.

    Args:
        cache: of the local cluster.
        scratch: what `gpu.install` and `gpu.whisper_models` have made; it has the same path in the images.
        code: the repository.
    """
    machine, stack = folder_of_layer(cache, MACHINE), folder_of_layer(cache, STACK)
    if not (done := machine.parent / "complete").exists():
        machine.mkdir(parents=True, exist_ok=True)
        for source in sources():
            linked(source, machine / str(source).lstrip("/"))
        (machine / "etc" / "resolv.conf").unlink(missing_ok=True)
        if _DRIVER.is_dir():
            shutil.copytree(_DRIVER, machine / str(_DRIVER).lstrip("/"), symlinks=True)
        for name in _EMPTY:
            (machine / name).mkdir(parents=True, exist_ok=True)
        (machine / "tmp").chmod(0o1777)
        for name in _LINKS:
            if not (machine / name).is_symlink() and Path("/", name).is_symlink():
                (machine / name).symlink_to(Path("/", name).readlink())
        done.touch()
    # The code changes from one call to the next.
    shutil.rmtree(stack, ignore_errors=True)
    for name in ("site", "models"):
        linked(scratch / name, stack / str(scratch / name).lstrip("/"))
    for name in ("operator/src", "servers/src", "simulation/src", "tests"):
        shutil.copytree(code / name, stack / "opt" / "code" / name)
    programs = stack / _PROGRAMS.lstrip("/")
    programs.mkdir(parents=True)
    for name in ("python", "python3"):
        # No link: a virtual environment is found by the path that its Python was called by.
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (programs / name).chmod(0o755)
    caches = stack / str(scratch).lstrip("/")
    for name in ("vllm", "triton", "huggingface", "cache"):
        if (scratch / name).is_dir():
            shutil.copytree(scratch / name, caches / name, dirs_exist_ok=True)
        (caches / name).mkdir(parents=True, exist_ok=True)
        subprocess.run(["chmod", "-R", "a+rwX", str(caches / name)], check=True)
    compileall.compile_dir(stack / "opt" / "code", quiet=2, workers=0)
    subprocess.run(["chmod", "-R", "a+rX", str(stack / "opt")], check=True)
    register(cache, [MACHINE, STACK])


def sources() -> "Iterator[Path]":
    """What of the machine goes into the lower layer."""
    usr = Path("/usr")
    yield from (it for it in sorted(usr.iterdir()) if it.name not in _LEFT_OUT)
    yield from (it for it in sorted((usr / "local").iterdir()) if not it.name.startswith(_LEFT_OUT_LOCAL))
    taken: list[Path] = [usr]
    for it in map(Path, _COPIED):
        if it.is_dir() and not any(it.is_relative_to(other) for other in taken):
            taken.append(it)
            yield it


def linked(source: Path, target: Path) -> None:
    """The tree of `source` without what is mounted in it: hard links where possible, else copies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["cp", "--archive", "--one-file-system", "--no-target-directory"]
    if subprocess.run([*command, "--link", str(source), str(target)], capture_output=True, check=False).returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        # Files that vanish meanwhile are no reason to give up.
        subprocess.run([*command, str(source), str(target)], capture_output=True, check=False)


def images(scratch: Path, python: Path) -> "list[Image]":
    """The operator, the probe, both servers, and the device plugin."""
    commands: Mapping[str, Sequence[str]] = {
        "operator": ("python3", "-m", "cotune.handlers"),
        "probe": ("python3", "-m", "cotune.measurement"),
        "stt": ("python3", "-m", "cotune_servers.stt"),
        "vllm": ("python3", "-m", "vllm.entrypoints.cli.main"),
        "card": ("python3", "-m", "gpu.device_plugin"),
    }
    code = ":".join(f"/opt/code/{it}" for it in ("operator/src", "servers/src", "simulation/src", "tests"))
    environment = {
        "PATH": f"{_PROGRAMS}:{python.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/usr/local/nvidia/bin",
        "PYTHONPATH": f"{code}:{scratch / 'site'}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64:/usr/local/nvidia/lib",
        "HOME": "/tmp",
        # A machine with many cores would have every process start as many threads.
        "OMP_NUM_THREADS": "8",
        "USER": "cotune",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HOME": str(scratch / "huggingface"),
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "VLLM_CACHE_ROOT": str(scratch / "vllm"),
        "TRITON_CACHE_DIR": str(scratch / "triton"),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "fork",
        "ASR_MODELS": str(scratch / "models" / "whisper"),
    }
    variables = [f"{name}={value}" for name, value in environment.items()]

    def image(name: str, command: Sequence[str]) -> Image:
        process: dict[str, Any] = {"Env": variables, "Cmd": list(command), "User": _USER, "WorkingDir": "/tmp"}
        return folder_image(f"localhost/cotune/{name}:dev", [MACHINE, STACK], process)

    return [image(name, command) for name, command in commands.items()]
