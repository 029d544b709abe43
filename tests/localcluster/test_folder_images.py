"""Images of folders: known to the nodes as unpacked layers, and the same image whenever it is made."""

import json
from pathlib import Path, PurePosixPath

from localcluster.folder_images import FolderLayer, folder_image, folder_of_layer, register
from localcluster.locations import Cache
from localcluster.oci import digest_of
from localcluster.shared_layers import unpacked_layers

_LOWER, _UPPER = FolderLayer("machine"), FolderLayer("stack")


def test_registered_layers_are_found_where_their_folders_are(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    register(cache, [_LOWER, _UPPER])

    found = unpacked_layers(cache.layers)
    image = folder_image("localhost/x:dev", [_LOWER, _UPPER], {"Cmd": ["true"]})
    assert [found[it] for it in image.layers()] == [
        PurePosixPath("overlay/machine/diff"),
        PurePosixPath("overlay/stack/diff"),
    ]
    assert folder_of_layer(cache, _UPPER) == cache.layers / found[image.layers()[1]]


def test_layers_of_a_build_stay_known_and_none_is_listed_twice(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    index = cache.layers / "overlay-layers" / "layers.json"
    index.parent.mkdir(parents=True)
    index.write_text(json.dumps([{"id": "built", "diff-digest": "sha256:1"}]))

    register(cache, [_LOWER])
    register(cache, [_LOWER, _UPPER])

    assert [it["id"] for it in json.loads(index.read_text())] == ["built", "machine", "stack"]


def test_the_image_is_the_same_every_time_and_differs_by_its_command() -> None:
    one, again = (folder_image("localhost/x:dev", [_LOWER], {"Cmd": ["true"]}) for _ in range(2))
    other = folder_image("localhost/x:dev", [_LOWER], {"Cmd": ["false"]})

    assert one.manifest == again.manifest != other.manifest
    assert one.layers() == other.layers() == [digest_of(_LOWER.archive)]
