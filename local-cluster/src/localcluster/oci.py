"""Container images as content-addressed blobs, and the one stream through which a node's runtime imports them."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"

Blob = bytes | Path
"""A blob's content, or the file that holds it."""


@dataclass(frozen=True)
class Image:
    """A named image with everything its manifest refers to."""

    reference: str
    """The name that pods use."""
    manifest: str
    """Digest of the manifest, `sha256:...`."""
    blobs: dict[str, Blob]
    """Manifest, configuration and layers by digest."""

    def layers(self) -> list[str]:
        """Digests of the uncompressed layers, the lowest first."""
        manifest = json.loads(_content(self.blobs[self.manifest]))
        return json.loads(_content(self.blobs[manifest["config"]["digest"]]))["rootfs"]["diff_ids"]


def digest_of(content: bytes) -> str:
    """The digest by which OCI addresses a blob."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def single_program_image(reference: str, program: Path) -> Image:
    """An image that holds one static program and runs it; the same program gives the same digest."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        _add(archive, program.name, program.read_bytes(), mode=0o755)
    return assemble(
        reference, [layer.getvalue()], {"Entrypoint": [f"/{program.name}"], "User": "65535:65535", "WorkingDir": "/"}
    )


class ImageStore:
    """Images in a folder: every blob once, by digest, and a file per tag that holds its manifest's digest."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._tags = root / "tags"

    def get(self, tag: str, reference: str) -> Image | None:
        """The image with this tag, to be known as `reference`, if the store has it."""
        try:
            digest = (self._tags / tag).read_text()
        except FileNotFoundError:
            return None
        manifest = json.loads(self._path(digest).read_text())
        digests = (digest, *(part["digest"] for part in (manifest["config"], *manifest["layers"])))
        return Image(reference, digest, {digest: self._path(digest) for digest in digests})

    def adopt(self, folder: Path, tag: str) -> None:
        """Move an image out of a folder of the `dir:` layout: `manifest.json` beside blobs named by their digest."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._tags.mkdir(parents=True, exist_ok=True)
        manifest = (folder / "manifest.json").read_bytes()
        document = json.loads(manifest)
        for part in (document["config"], *document["layers"]):
            hexadecimal = part["digest"].removeprefix("sha256:")
            (folder / hexadecimal).replace(self._path(part["digest"]))
        digest = digest_of(manifest)
        self._path(digest).write_bytes(manifest)
        (self._tags / tag).write_text(digest)

    def _path(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")


def write_archive(stream: IO[bytes], images: Iterable[Image]) -> None:
    """Write images as one OCI archive; layers that they share travel once."""
    images = tuple(images)
    blobs: dict[str, Blob] = {}
    for image in images:
        blobs |= image.blobs
    index = {
        "schemaVersion": 2,
        "mediaType": _INDEX,
        "manifests": [
            {
                "mediaType": _MANIFEST,
                "digest": image.manifest,
                "size": _size(image.blobs[image.manifest]),
                "annotations": {"io.containerd.image.name": image.reference},
            }
            for image in images
        ],
    }
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(archive, "index.json", json.dumps(index).encode())
        for digest, blob in blobs.items():
            _add(archive, f"blobs/{digest.replace(':', '/')}", blob)


def assemble(reference: str, layers: Sequence[bytes], process: Mapping[str, Any]) -> Image:
    """An image of uncompressed layers, the lowest first, that runs `process`."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": dict(process),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(it) for it in layers]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [{"mediaType": _LAYER, "digest": digest_of(it), "size": len(it)} for it in layers],
        }
    ).encode()
    blobs: dict[str, Blob] = {digest_of(blob): blob for blob in (manifest, config, *layers)}
    return Image(reference, digest_of(manifest), blobs)


def _add(archive: tarfile.TarFile, name: str, blob: Blob, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = _size(blob), mode
    if isinstance(blob, bytes):
        archive.addfile(entry, io.BytesIO(blob))
    else:
        with blob.open("rb") as content:
            archive.addfile(entry, content)


def _content(blob: Blob) -> bytes:
    return blob if isinstance(blob, bytes) else blob.read_bytes()


def _size(blob: Blob) -> int:
    return len(blob) if isinstance(blob, bytes) else blob.stat().st_size
