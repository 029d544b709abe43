"""CTranslate2's file is read as its converter writes it, and its fused projections are taken apart in order."""

import struct
from typing import Any

import numpy as np
import pytest
from cotune_servers.weights.ctranslate2_file import FormatError, Variables, read_variables
from cotune_servers.weights.whisper_checkpoint import dimensions, state
from numpy.typing import NDArray

_NUMBERS = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
_WIDTH = 64


def text(it: str) -> bytes:
    encoded = it.encode() + b"\0"
    return struct.pack("<H", len(encoded)) + encoded


def file(variables: Variables, aliases: "dict[str, str] | None" = None, version: int = 6) -> bytes:
    parts = [struct.pack("<I", version), text("WhisperSpec"), struct.pack("<I", 3), struct.pack("<I", len(variables))]
    for name, value in variables.items():
        parts += [text(name), struct.pack("<B", value.ndim), *(struct.pack("<I", it) for it in value.shape)]
        parts += [struct.pack("<BI", _NUMBERS[value.dtype.name], value.nbytes), value.tobytes()]
    parts.append(struct.pack("<I", len(aliases or {})))
    parts += [text(it) for pair in (aliases or {}).items() for it in pair]
    return b"".join(parts)


def test_variables_and_aliases_are_read_with_type_and_shape() -> None:
    wanted: Variables = {
        "a/weight": np.arange(6, dtype=np.float16).reshape(2, 3),
        "b/scale": np.array(0.5, np.float32),
        "c": np.array([-1, 2], np.int8),
    }

    found = read_variables(file(wanted, {"d/weight": "a/weight"}))

    assert found.keys() == {"a/weight", "b/scale", "c", "d/weight"}
    for name, value in {**wanted, "d/weight": wanted["a/weight"]}.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("length", [0, 3, 12, 30, 60])
def test_a_file_that_was_cut_is_refused(length: int) -> None:
    whole = file({"a/weight": np.zeros((4, 4), np.float32)})

    with pytest.raises(FormatError):
        read_variables(whole[:length])


def test_an_old_version_and_an_unknown_type_are_refused() -> None:
    with pytest.raises(FormatError, match="version 2"):
        read_variables(file({}, version=2))
    broken = bytearray(file({"a": np.zeros(1, np.int8)}))
    broken[-10] = 9
    with pytest.raises(FormatError, match="a has the unknown type 9"):
        read_variables(bytes(broken))


def whisper() -> Variables:
    """One layer on each side, every number another one."""
    made: Variables = {}
    count = iter(range(10_000))

    def add(name: str, *shape: int) -> None:
        made[name] = np.full(shape, next(count), np.float32)

    def linear(name: str, rows: int, columns: int = _WIDTH) -> None:
        add(f"{name}/weight", rows, columns)
        add(f"{name}/bias", rows)

    def norm(name: str) -> None:
        add(f"{name}/gamma", _WIDTH)
        add(f"{name}/beta", _WIDTH)

    def fused(name: str, parts: int, key: int) -> None:
        linear(name, parts * _WIDTH)
        made[f"{name}/weight"] = np.repeat(np.arange(parts, dtype=np.float32), _WIDTH)[:, None] * np.ones(_WIDTH)
        bias: NDArray[Any] = np.repeat(np.arange(1, parts + 1, dtype=np.float32), _WIDTH)
        bias[key * _WIDTH : (key + 1) * _WIDTH] = 0
        made[f"{name}/bias"] = bias

    add("encoder/conv1/weight", _WIDTH, 80, 3)
    add("encoder/conv1/bias", _WIDTH)
    add("encoder/conv2/weight", _WIDTH, _WIDTH, 3)
    add("encoder/conv2/bias", _WIDTH)
    add("decoder/embeddings/weight", 100, _WIDTH)
    add("decoder/position_encodings/encodings", 448, _WIDTH)
    for side in ("encoder", "decoder"):
        norm(f"{side}/layer_norm")
        layer = f"{side}/layer_0"
        norm(f"{layer}/self_attention/layer_norm")
        fused(f"{layer}/self_attention/linear_0", 3, key=1)
        linear(f"{layer}/self_attention/linear_1", _WIDTH)
        norm(f"{layer}/ffn/layer_norm")
        linear(f"{layer}/ffn/linear_0", 4 * _WIDTH)
        linear(f"{layer}/ffn/linear_1", _WIDTH, 4 * _WIDTH)
    norm("decoder/layer_0/attention/layer_norm")
    linear("decoder/layer_0/attention/linear_0", _WIDTH)
    fused("decoder/layer_0/attention/linear_1", 2, key=0)
    linear("decoder/layer_0/attention/linear_2", _WIDTH)
    return made


def test_dimensions_are_those_of_the_variables() -> None:
    found = dimensions(whisper())

    assert (found["n_mels"], found["n_vocab"], found["n_text_state"], found["n_audio_head"]) == (80, 100, 64, 1)
    assert (found["n_audio_layer"], found["n_text_layer"]) == (1, 1)


def test_fused_projections_are_taken_apart_in_order() -> None:
    found = state(whisper())

    for block in ("encoder.blocks.0", "decoder.blocks.0"):
        values = [found[f"{block}.attn.{it}.weight"].mean() for it in ("query", "key", "value")]
        assert values == [0, 1, 2]
        assert [found[f"{block}.attn.{it}.bias"].mean() for it in ("query", "value")] == [1, 3]
        assert f"{block}.attn.key.bias" not in found
    assert [found[f"decoder.blocks.0.cross_attn.{it}.weight"].mean() for it in ("key", "value")] == [0, 1]
    assert "encoder.blocks.0.cross_attn.query.weight" not in found
    assert found["encoder.blocks.0.mlp.2.weight"].shape == (_WIDTH, 4 * _WIDTH)


def test_a_key_with_a_bias_is_not_whispers() -> None:
    variables = whisper()
    variables["encoder/layer_0/self_attention/linear_0/bias"] = np.ones(3 * _WIDTH, np.float32)

    with pytest.raises(ValueError, match="encoder/layer_0/self_attention/linear_0: the key projection has a bias"):
        state(variables)
