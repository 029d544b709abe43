"""Images as the nodes' runtimes read them."""

import io
import json
import tarfile
from pathlib import Path

from localcluster.oci import Image, ImageStore, digest_of, single_program_image, write_archive


def read_archive(images: list[Image]) -> dict[str, bytes]:
    stream = io.BytesIO()
    write_archive(stream, images)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]


def program(folder: Path, content: bytes = b"program") -> Path:
    path = folder / "pause"
    path.write_bytes(content)
    return path


def test_every_blob_is_found_under_its_digest(tmp_path: Path) -> None:
    image = single_program_image("localhost/x:dev", program(tmp_path))
    files = read_archive([image])
    for digest in image.blobs:
        assert digest_of(files[f"blobs/{digest.replace(':', '/')}"]) == digest


def test_the_index_names_the_image(tmp_path: Path) -> None:
    image = single_program_image("localhost/x:dev", program(tmp_path))
    (entry,) = json.loads(read_archive([image])["index.json"])["manifests"]
    assert entry["digest"] == image.manifest
    assert entry["annotations"] == {"io.containerd.image.name": "localhost/x:dev"}


def test_shared_blobs_travel_once(tmp_path: Path) -> None:
    images = [single_program_image(f"localhost/{name}:dev", program(tmp_path)) for name in ("x", "y")]
    assert len(read_archive(images)) == len(read_archive(images[:1]))


def test_the_same_program_gives_the_same_image(tmp_path: Path) -> None:
    first = single_program_image("localhost/x:dev", program(tmp_path))
    assert single_program_image("localhost/x:dev", program(tmp_path)) == first
    assert single_program_image("localhost/x:dev", program(tmp_path, b"other")).manifest != first.manifest


def test_a_store_gives_back_what_it_adopted(tmp_path: Path) -> None:
    image = single_program_image("localhost/x:dev", program(tmp_path))
    folder = tmp_path / "dir"
    folder.mkdir()
    for digest, blob in image.blobs.items():
        assert isinstance(blob, bytes)
        name = "manifest.json" if digest == image.manifest else digest.removeprefix("sha256:")
        (folder / name).write_bytes(blob)
    store = ImageStore(tmp_path / "store")
    assert store.get("x-1", "localhost/x:dev") is None
    store.adopt(folder, "x-1")
    kept = store.get("x-1", "localhost/x:dev")
    assert kept is not None
    assert kept.manifest == image.manifest
    assert read_archive([kept]) == read_archive([image])
