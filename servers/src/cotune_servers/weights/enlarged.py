"""A Whisper of larger dimensions that computes what a smaller one does.

Where a size has no weights at hand, this is the next best for measuring time and memory: every matrix has the larger
model's shape, and the answers, and so their lengths, are the smaller model's. Random weights would talk nonsense of any
length. The word error rate is the smaller model's as well: it says nothing of the larger one.

Every feature is repeated `times` times (x becomes [x, x]), which layer normalisation does not notice; a matrix W
becomes [[W, W], [W, W]] / 2, an attention head gets a copy. Further blocks write zeros to the residual stream. Names
are those of `whisper.model.Whisper`; the method is that of Net2Net (Chen, Goodfellow, Shlens: arXiv 1511.05641).
"""

import re
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

State: TypeAlias = dict[str, NDArray[Any]]

_BLOCK = re.compile(r"(encoder|decoder)\.blocks\.(\d+)\.(.+)")
_WRITES = ("attn.out.", "cross_attn.out.", "mlp.2.")
"""The layers of a block that add to the residual stream."""


def enlarged(dimensions: "dict[str, int]", state: State, times: int, layers: int) -> "tuple[dict[str, int], State]":
    """Dimensions and state of the larger model.

    Args:
        dimensions: the smaller model's.
        state: the smaller model's.
        times: how many times as wide; heads keep their width.
        layers: of the encoder, and of the decoder.

    Raises:
        ValueError: fewer layers than there are.
    """
    if layers < max(dimensions["n_audio_layer"], dimensions["n_text_layer"]):
        raise ValueError(f"{layers} layers are fewer than the model has")
    wide = {name: _widened(name, it, times) for name, it in state.items()}
    for side, there in (("encoder", dimensions["n_audio_layer"]), ("decoder", dimensions["n_text_layer"])):
        for number in range(there, layers):
            wide |= _idle_block(wide, side, there - 1, number)
    larger = dimensions | {"n_audio_layer": layers, "n_text_layer": layers}
    for name in ("n_audio_state", "n_audio_head", "n_text_state", "n_text_head"):
        larger[name] = dimensions[name] * times
    return larger, wide


def _widened(name: str, value: "NDArray[Any]", times: int) -> "NDArray[Any]":
    if name == "decoder.token_embedding.weight" or name.endswith("positional_embedding"):
        return np.tile(value, (1, times))
    if name == "encoder.conv1.weight":  # Its input is sound, which stays as it is.
        return np.tile(value, (times, 1, 1))
    if value.ndim == 1:
        # The logits are a sum over all features: the last normalisation makes up for their number.
        return np.tile(value, times) / (times if name.startswith("decoder.ln.") else 1)
    return np.tile(value, (times, times, *(1 for _ in value.shape[2:]))) / times


def _idle_block(state: State, side: str, like: int, number: int) -> State:
    found: State = {}
    for name, value in state.items():
        match = _BLOCK.fullmatch(name)
        if match and match[1] == side and int(match[2]) == like:
            is_written = match[3].startswith(_WRITES)
            found[f"{side}.blocks.{number}.{match[3]}"] = np.zeros_like(value) if is_written else value
    return found
