"""`python -m cotune_servers.weights.whisper_checkpoint MODEL.bin CHECKPOINT.pt`: from CTranslate2 to openai-whisper.

CTranslate2 fuses projections: query, key and value of self-attention, key and value of cross-attention. Names on
the right are those of `whisper.model.Whisper`.
"""

import argparse
import importlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cotune_servers.weights.ctranslate2_file import Variables, read_variables

_HEAD_WIDTH = 64
"""All sizes of Whisper have heads of this width."""
_AUDIO_CONTEXT, _TEXT_CONTEXT = 1500, 448

State: TypeAlias = dict[str, NDArray[Any]]


def dimensions(variables: Variables) -> dict[str, int]:
    """The fields of `whisper.model.ModelDimensions`."""
    vocabulary, width = variables["decoder/embeddings/weight"].shape
    return {
        "n_mels": variables["encoder/conv1/weight"].shape[1],
        "n_audio_ctx": _AUDIO_CONTEXT,
        "n_audio_state": width,
        "n_audio_head": width // _HEAD_WIDTH,
        "n_audio_layer": _layers(variables, "encoder"),
        "n_vocab": vocabulary,
        "n_text_ctx": _TEXT_CONTEXT,
        "n_text_state": width,
        "n_text_head": width // _HEAD_WIDTH,
        "n_text_layer": _layers(variables, "decoder"),
    }


def state(variables: Variables) -> State:
    """The state dictionary; the encoder's sinusoids are left out where the file has none, the model makes them itself.

    Raises:
        ValueError: a key projection has a bias other than zero, which Whisper's has not.
    """
    found: State = {}
    for name in ("conv1", "conv2"):
        _copy(found, f"encoder.{name}", variables, f"encoder/{name}")
    if (positions := variables.get("encoder/position_encodings/encodings")) is not None:
        found["encoder.positional_embedding"] = positions
    found["decoder.token_embedding.weight"] = variables["decoder/embeddings/weight"]
    found["decoder.positional_embedding"] = variables["decoder/position_encodings/encodings"]
    for side in ("encoder", "decoder"):
        for number in range(_layers(variables, side)):
            _layer(found, f"{side}.blocks.{number}", variables, f"{side}/layer_{number}")
    _norm(found, "encoder.ln_post", variables, "encoder/layer_norm")
    _norm(found, "decoder.ln", variables, "decoder/layer_norm")
    return found


def _layer(found: State, block: str, variables: Variables, layer: str) -> None:
    attention, crossed = f"{layer}/self_attention", f"{layer}/attention"
    _norm(found, f"{block}.attn_ln", variables, f"{attention}/layer_norm")
    _split(found, f"{block}.attn", ("query", "key", "value"), variables, f"{attention}/linear_0")
    _copy(found, f"{block}.attn.out", variables, f"{attention}/linear_1")
    if f"{crossed}/linear_0/weight" in variables:
        _norm(found, f"{block}.cross_attn_ln", variables, f"{crossed}/layer_norm")
        _copy(found, f"{block}.cross_attn.query", variables, f"{crossed}/linear_0")
        _split(found, f"{block}.cross_attn", ("key", "value"), variables, f"{crossed}/linear_1")
        _copy(found, f"{block}.cross_attn.out", variables, f"{crossed}/linear_2")
    _norm(found, f"{block}.mlp_ln", variables, f"{layer}/ffn/layer_norm")
    _copy(found, f"{block}.mlp.0", variables, f"{layer}/ffn/linear_0")
    _copy(found, f"{block}.mlp.2", variables, f"{layer}/ffn/linear_1")


def _layers(variables: Variables, side: str) -> int:
    names = {it.split("/")[1] for it in variables if it.startswith(f"{side}/layer_")}
    return len({it for it in names if it.removeprefix("layer_").isdigit()})


def _copy(found: State, to: str, variables: Variables, name: str) -> None:
    for part in ("weight", "bias"):
        found[f"{to}.{part}"] = variables[f"{name}/{part}"]


def _norm(found: State, to: str, variables: Variables, name: str) -> None:
    found[f"{to}.weight"], found[f"{to}.bias"] = variables[f"{name}/gamma"], variables[f"{name}/beta"]


def _split(found: State, to: str, parts: "tuple[str, ...]", variables: Variables, name: str) -> None:
    weights = np.split(variables[f"{name}/weight"], len(parts))
    biases = np.split(variables[f"{name}/bias"], len(parts))
    for part, weight, bias in zip(parts, weights, biases, strict=True):
        found[f"{to}.{part}.weight"] = weight
        if part != "key":
            found[f"{to}.{part}.bias"] = bias
        elif np.any(bias):
            raise ValueError(f"{name}: the key projection has a bias")


def write_checkpoint(fields: dict[str, int], arrays: State, checkpoint: Path) -> int:
    """Write what `whisper.load_model` reads; returns the number of parameters. A missing or surplus tensor shows."""
    # Both are only where the weights are used.
    torch: Any = importlib.import_module("torch")
    whisper: Any = importlib.import_module("whisper.model")
    model = whisper.Whisper(whisper.ModelDimensions(**fields))
    tensors = {"encoder.positional_embedding": model.encoder.positional_embedding}
    tensors |= {name: torch.from_numpy(np.array(it)).half() for name, it in arrays.items()}
    model.load_state_dict(tensors, strict=True)
    torch.save({"dims": fields, "model_state_dict": tensors}, checkpoint)
    return sum(it.numel() for it in tensors.values())


def main() -> None:
    """Convert, and load the result into the model once, so that a missing or a surplus tensor shows here."""
    parser = argparse.ArgumentParser(prog="python -m cotune_servers.weights.whisper_checkpoint", description=__doc__)
    parser.add_argument("source", type=Path, nargs="+", help="model.bin, or its parts in order")
    parser.add_argument("checkpoint", type=Path)
    options = parser.parse_args()
    variables = read_variables(b"".join(it.read_bytes() for it in options.source))
    fields = dimensions(variables)
    count = write_checkpoint(fields, state(variables), options.checkpoint)
    print(f"{options.checkpoint}: {count:,} parameters, {fields}")


if __name__ == "__main__":
    main()
