"""A model that was enlarged answers as the small one: checked by running both, in the arithmetic of whisper.model."""

from typing import Any

import numpy as np
import pytest
from cotune_servers.weights.eight_bits import restored, rounded
from cotune_servers.weights.enlarged import State, enlarged
from numpy.typing import NDArray

Array = NDArray[Any]

_WIDTH, _HEADS, _LAYERS, _MELS, _FRAMES, _WORDS, _TEXT = 16, 2, 2, 4, 12, 20, 5
_DIMENSIONS = {
    "n_mels": _MELS,
    "n_audio_ctx": _FRAMES,
    "n_audio_state": _WIDTH,
    "n_audio_head": _HEADS,
    "n_audio_layer": _LAYERS,
    "n_vocab": _WORDS,
    "n_text_ctx": _TEXT,
    "n_text_state": _WIDTH,
    "n_text_head": _HEADS,
    "n_text_layer": _LAYERS,
}


def small_state() -> State:
    random = np.random.default_rng(7)

    def of(*shape: int) -> Array:
        return random.standard_normal(shape) * 0.3

    found: State = {
        "encoder.conv1.weight": of(_WIDTH, _MELS, 3),
        "encoder.conv1.bias": of(_WIDTH),
        "encoder.conv2.weight": of(_WIDTH, _WIDTH, 3),
        "encoder.conv2.bias": of(_WIDTH),
        "encoder.positional_embedding": of(_FRAMES, _WIDTH),
        "decoder.token_embedding.weight": of(_WORDS, _WIDTH),
        "decoder.positional_embedding": of(_TEXT, _WIDTH),
    }
    for side in ("encoder", "decoder"):
        for name in (f"{side}.{'ln_post' if side == 'encoder' else 'ln'}",):
            found |= {f"{name}.weight": of(_WIDTH), f"{name}.bias": of(_WIDTH)}
        for number in range(_LAYERS):
            block = f"{side}.blocks.{number}"
            for attention in ("attn", "cross_attn") if side == "decoder" else ("attn",):
                for part in ("query", "key", "value", "out"):
                    found[f"{block}.{attention}.{part}.weight"] = of(_WIDTH, _WIDTH)
                    if part != "key":
                        found[f"{block}.{attention}.{part}.bias"] = of(_WIDTH)
                found |= {f"{block}.{attention}_ln.weight": of(_WIDTH), f"{block}.{attention}_ln.bias": of(_WIDTH)}
            found |= {f"{block}.mlp.0.weight": of(4 * _WIDTH, _WIDTH), f"{block}.mlp.0.bias": of(4 * _WIDTH)}
            found |= {f"{block}.mlp.2.weight": of(_WIDTH, 4 * _WIDTH), f"{block}.mlp.2.bias": of(_WIDTH)}
            found |= {f"{block}.mlp_ln.weight": of(_WIDTH), f"{block}.mlp_ln.bias": of(_WIDTH)}
    return found


class Whisper:
    """`whisper.model.Whisper` in numpy, for one recording."""

    def __init__(self, dimensions: "dict[str, int]", state: State) -> None:
        self.d = dimensions
        self.s = state

    def logits(self, mel: Array, tokens: Array) -> Array:
        x = gelu(self._convolved("encoder.conv1", mel, stride=1))
        x = gelu(self._convolved("encoder.conv2", x, stride=2)).T
        x = x + self.s["encoder.positional_embedding"][: len(x)]
        for number in range(self.d["n_audio_layer"]):
            x = self._block(f"encoder.blocks.{number}", x, None, self.d["n_audio_head"], is_causal=False)
        heard = self._norm("encoder.ln_post", x)
        y = self.s["decoder.token_embedding.weight"][tokens] + self.s["decoder.positional_embedding"][: len(tokens)]
        for number in range(self.d["n_text_layer"]):
            y = self._block(f"decoder.blocks.{number}", y, heard, self.d["n_text_head"], is_causal=True)
        return self._norm("decoder.ln", y) @ self.s["decoder.token_embedding.weight"].T

    def _convolved(self, name: str, x: Array, stride: int) -> Array:
        padded = np.pad(x, ((0, 0), (1, 1)))
        windows = np.stack([padded[:, at : at + 3] for at in range(0, x.shape[1], stride)])
        found: Array = np.einsum("oik,tik->ot", self.s[f"{name}.weight"], windows)
        return found + self.s[f"{name}.bias"][:, None]

    def _norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self.s[f"{name}.weight"] + self.s[f"{name}.bias"]

    def _linear(self, name: str, x: Array) -> Array:
        return x @ self.s[f"{name}.weight"].T + self.s.get(f"{name}.bias", np.zeros(1))

    def _attention(self, name: str, x: Array, other: Array, heads: int, is_causal: bool) -> Array:
        def split(y: Array) -> Array:
            return y.reshape(len(y), heads, -1).transpose(1, 0, 2)

        q, k, v = (split(self._linear(f"{name}.{it}", y)) for it, y in (("query", x), ("key", other), ("value", other)))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        if is_causal:
            scores = scores + np.triu(np.full(scores.shape[1:], -1e9), 1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ v
        return self._linear(f"{name}.out", mixed.transpose(1, 0, 2).reshape(len(x), -1))

    def _block(self, name: str, x: Array, heard: Array | None, heads: int, is_causal: bool) -> Array:
        normed = self._norm(f"{name}.attn_ln", x)
        x = x + self._attention(f"{name}.attn", normed, normed, heads, is_causal)
        if heard is not None:
            normed = self._norm(f"{name}.cross_attn_ln", x)
            x = x + self._attention(f"{name}.cross_attn", normed, heard, heads, is_causal=False)
        inner = gelu(self._linear(f"{name}.mlp.0", self._norm(f"{name}.mlp_ln", x)))
        return x + self._linear(f"{name}.mlp.2", inner)


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def test_the_larger_model_gives_the_same_logits() -> None:
    state = small_state()
    mel = np.random.default_rng(1).standard_normal((_MELS, 2 * _FRAMES))
    tokens = np.array([3, 1, 4, 1])

    dimensions, wide = enlarged(_DIMENSIONS, state, times=2, layers=5)

    small, large = Whisper(_DIMENSIONS, state).logits(mel, tokens), Whisper(dimensions, wide).logits(mel, tokens)
    assert np.ptp(small) > 1  # Something is said.
    np.testing.assert_allclose(large, small, atol=1e-6)


def test_every_matrix_has_the_larger_models_shape() -> None:
    dimensions, wide = enlarged(_DIMENSIONS, small_state(), times=2, layers=5)

    assert (dimensions["n_audio_state"], dimensions["n_text_head"], dimensions["n_text_layer"]) == (32, 4, 5)
    assert wide["encoder.conv1.weight"].shape == (32, _MELS, 3)
    assert wide["encoder.conv2.weight"].shape == (32, 32, 3)
    assert wide["encoder.blocks.4.attn.query.weight"].shape == (32, 32)
    assert wide["decoder.blocks.4.cross_attn.out.weight"].shape == (32, 32)
    assert wide["decoder.blocks.4.mlp.0.weight"].shape == (128, 32)
    assert wide["decoder.token_embedding.weight"].shape == (_WORDS, 32)


def test_a_model_is_not_made_shallower() -> None:
    with pytest.raises(ValueError, match="1 layers are fewer"):
        enlarged(_DIMENSIONS, small_state(), times=2, layers=1)


def test_eight_bits_lose_at_most_half_a_step_of_the_rows_scale() -> None:
    values = np.random.default_rng(3).standard_normal((6, 4, 3)).astype(np.float32)
    values[2] = 0

    whole, scales = rounded(values)
    back = restored(whole, scales)

    assert whole.dtype == np.int8
    assert back.shape == values.shape
    step = scales.astype(np.float32).reshape(-1, 1, 1)
    assert np.all(np.abs(back.astype(np.float32) - values) <= 0.52 * step + 1e-4)
    assert not back[2].any()
