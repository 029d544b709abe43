"""A language model's published files on this machine: a folder, or the cache of the Hugging Face hub."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from cotune.planning.model_config import ModelConfig, ModelConfigError, read_model_config, read_weights_index

_INDEX = "model.safetensors.index.json"
_VALUED = ("--model", "--model-tag")
_LENGTH_BYTES, _LARGEST_HEADER = 8, 100_000_000
"""Of a safetensors file: the length of its header, in little-endian order, comes first; the format bounds it."""


class NoModelError(ValueError):
    """Nothing of the model is on this machine; the message says where was looked."""


def named_model(words: Sequence[str]) -> str | None:
    """The model that a command line of vLLM serves: the word after `serve`, or `--model`; None: it names none."""
    for index, word in enumerate(words):
        option, separator, value = word.partition("=")
        following = words[index + 1] if index + 1 < len(words) else None
        if option in _VALUED:
            return value if separator else following
        if word == "serve" and following is not None and not following.startswith("-"):
            return following
    return None


def model_folder(name: str, environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of a model's `config.json`: `name` itself, or the snapshot that the hub's cache has of it.

    Raises:
        NoModelError: neither is there.
    """
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder
    cached = _hub_cache(environment) / f"models--{name.replace('/', '--')}"
    for revision in _revisions(cached):
        if (cached / "snapshots" / revision / "config.json").is_file():
            return cached / "snapshots" / revision
    raise NoModelError(f"{name}: no config.json in {folder}, and none in the hub's cache at {cached}")


def read_model_folder(folder: Path) -> ModelConfig:
    """A model's configuration, and what its weights hold where its safetensors files or their index say it.

    Raises:
        ModelConfigError: a file is not what its name says.
    """
    stored = None
    if (folder / _INDEX).is_file():
        stored = read_weights_index((folder / _INDEX).read_bytes())
    elif files := sorted(folder.glob("*.safetensors")):
        stored = sum(_tensor_bytes(it) for it in files)
    return read_model_config((folder / "config.json").read_bytes(), stored)


def _hub_cache(environment: Mapping[str, str]) -> Path:
    """As huggingface_hub finds it: HF_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub, ~/.cache/..."""
    if cache := environment.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    if home := environment.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def _revisions(cached: Path) -> tuple[str, ...]:
    """The commit that `main` means, then all others that are there."""
    main = cached / "refs" / "main"
    snapshots = cached / "snapshots"
    first = (main.read_text().strip(),) if main.is_file() else ()
    return (*first, *(sorted(it.name for it in snapshots.iterdir()) if snapshots.is_dir() else ()))


def _tensor_bytes(file: Path) -> int:
    """What a safetensors file holds, by its header: the weights themselves are not read."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            if not 0 < length <= _LARGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header = cast("dict[str, Any]", json.loads(stream.read(length)))
        offsets = (it["data_offsets"] for name, it in header.items() if name != "__metadata__")
        return sum(int(end) - int(begin) for begin, end in offsets)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelConfigError(f"{file.name} is no safetensors file: {error}") from error
