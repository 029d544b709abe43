"""Images whose layers are folders that lie on this machine already: nothing is packed, hashed or copied.

A layer of several gigabytes, such as the machine's own Python with its libraries, would take minutes as an archive.
Here the archive of a layer holds one small file that says where the layer comes from, which is what its digest is made
of; the layer's folder is put into the build's storage, and nodes mount it there as they do with built layers
(`shared_layers`). The digest identifies the layer on this machine only: such an image must never leave it.
"""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.locations import Cache
from localcluster.oci import Image, assemble, digest_of


@dataclass(frozen=True)
class FolderLayer:
    """A layer by its name; the folder is `folder_of_layer`."""

    name: str
    """Also in its digest: another content wants another name."""

    @property
    def archive(self) -> bytes:
        """What stands for the layer in the image."""
        content = f"This layer is the folder {self.name} of the machine that it was made on.\n".encode()
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            member = tarfile.TarInfo(f".layer-{self.name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        return stream.getvalue()


def folder_of_layer(cache: Cache, layer: FolderLayer) -> Path:
    """Where the layer's files belong."""
    return cache.layers / "overlay" / layer.name / "diff"


def register(cache: Cache, layers: Sequence[FolderLayer]) -> None:
    """Make the layers known as unpacked ones; a build's own stay known."""
    index = cache.layers / "overlay-layers" / "layers.json"
    index.parent.mkdir(parents=True, exist_ok=True)
    known: list[dict[str, Any]] = json.loads(index.read_text()) if index.exists() else []
    new = [{"id": it.name, "diff-digest": digest_of(it.archive)} for it in layers]
    names = {it["id"] for it in new}
    index.write_text(json.dumps([*(it for it in known if it["id"] not in names), *new]))


def folder_image(reference: str, layers: Sequence[FolderLayer], process: Mapping[str, Any]) -> Image:
    """An image of these layers, the lowest first.

    Args:
        reference: the name that pods use.
        layers: registered ones.
        process: the `config` of the OCI image configuration: Env, Cmd, User.
    """
    return assemble(reference, [it.archive for it in layers], process)
