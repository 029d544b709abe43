"""Unpacked image layers, used by all nodes in place.

The build's storage keeps every layer as a folder that overlayfs can mount, which is what a node's container runtime
makes of an imported image. Giving each node a link to that folder instead of a copy of its own saves most of the time
and all of the space that an import takes, which matters for images of several gigabytes.
"""

import hashlib
import json
import re
import subprocess
from pathlib import Path, PurePosixPath

from localcluster.errors import LocalClusterError
from localcluster.locations import NodeFiles
from localcluster.oci import Image

_SNAPSHOT_FOLDER = re.compile(r"/snapshots/(\d+)/fs")


def unpacked_layers(storage: Path) -> dict[str, PurePosixPath]:
    """The folder of each unpacked layer, relative to the storage, by the digest of the layer's archive."""
    try:
        layers = json.loads((storage / "overlay-layers" / "layers.json").read_text())
    except FileNotFoundError:
        return {}
    return {
        layer["diff-digest"]: PurePosixPath("overlay", layer["id"], "diff")
        for layer in layers
        if "diff-digest" in layer
    }


def chain_identifiers(layers: list[str]) -> list[str]:
    """What identifies each layer together with all below it, as the OCI image specification defines it."""
    chain: list[str] = []
    for layer in layers:
        joined = f"{chain[-1]} {layer}" if chain else None
        chain.append(f"sha256:{hashlib.sha256(joined.encode()).hexdigest()}" if joined else layer)
    return chain


class SharedLayers:
    """Makes layers of the build's storage known to one node's container runtime."""

    def __init__(self, ctr: Path, node: NodeFiles, storage: Path) -> None:
        self._command = [str(ctr), f"--address={node.containerd_socket}", "--namespace=k8s.io", "snapshots"]
        self._node = node
        self._layers = unpacked_layers(storage) if node.layers.is_dir() else {}

    def offer(self, image: Image) -> None:
        """Register the image's layers up to the first that is not at hand; an import unpacks the others.

        :raises LocalClusterError: the runtime refused one.
        """
        layers = image.layers()
        known = set(self._ctr("list").split())
        parent: list[str] = []
        for layer, identifier in zip(layers, chain_identifiers(layers), strict=True):
            if identifier not in known:
                if layer not in self._layers:
                    return
                self._register(identifier, parent, self._layers[layer])
            parent = [identifier]

    def _register(self, identifier: str, parent: list[str], folder: PurePosixPath) -> None:
        active = f"shared-{identifier}"
        number = writable_snapshot(self._ctr("prepare", "--mounts", active, *parent))
        content = self._node.snapshots / number / "fs"
        content.rmdir()
        content.symlink_to(PurePosixPath("/run", self._node.layers.name) / folder)
        self._ctr("commit", identifier, active)

    def _ctr(self, *arguments: str) -> str:
        done = subprocess.run([*self._command, *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LocalClusterError(f"ctr snapshots {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout


def writable_snapshot(mounts: str) -> str:
    """The number of the snapshot that a runtime's list of mounts lets one write to."""
    (mount,) = json.loads(mounts)
    written = [option for option in mount.get("Options", []) if option.startswith("upperdir=")] or [mount["Source"]]
    match = _SNAPSHOT_FOLDER.search(written[0])
    if match is None:
        raise LocalClusterError(f"the container runtime names no snapshot folder: {mounts}")
    return match.group(1)
