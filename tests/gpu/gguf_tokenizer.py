"""The tokenizer that a GGUF file carries, as the files that Hugging Face's libraries read.

A GGUF file (version 2 or 3, little-endian) begins with its metadata: magic, version, count of tensors, count of pairs;
then pairs of a key, a type and a value. Strings and lists carry their length (eight bytes) in front.
"""

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _LIST = 8, 9
_CONTROL_TOKEN = 3


def read_metadata(file: IO[bytes]) -> "dict[str, Any]":
    """The metadata; the tensors behind it are not read.

    Raises:
        ValueError: the file is not GGUF of version 2 or 3.
    """
    magic, version, _, pairs = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version not in {2, 3}:
        raise ValueError(f"neither GGUF 2 nor 3: {magic!r}, version {version}")
    return {_string(file): _value(file, _number(file, "I")) for _ in range(pairs)}


def tokenizer_files(metadata: Mapping[str, Any]) -> "dict[str, str]":
    """`tokenizer.json` and `tokenizer_config.json` of a byte-level BPE vocabulary of SmolLM2's kind.

    Digits are split one by one before the bytes are taken, as llama.cpp's pre-tokenizer `smollm` does.

    Raises:
        ValueError: it is a vocabulary of another kind.
    """
    kind = (metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"])
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"no vocabulary of SmolLM2's kind: {kind}")
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    kinds: list[int] = metadata["tokenizer.ggml.token_type"]
    added = [
        {"id": number, "content": token, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number, (token, kind_of_token) in enumerate(zip(tokens, kinds, strict=True))
        if kind_of_token == _CONTROL_TOKEN
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        },
    }
    end: str = tokens[int(metadata["tokenizer.ggml.eos_token_id"])]
    config: dict[str, str | int] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[metadata["tokenizer.ggml.bos_token_id"]],
        "eos_token": end,
        "pad_token": end,
        "model_max_length": 131072,
    }
    return {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False),
        "tokenizer_config.json": json.dumps(config, indent=2),
    }


def _number(file: IO[bytes], code: str) -> Any:
    return struct.unpack("<" + code, file.read(struct.calcsize("<" + code)))[0]


def _string(file: IO[bytes]) -> str:
    return file.read(_number(file, "Q")).decode()


def _value(file: IO[bytes], kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind == _LIST:
        of, length = struct.unpack("<IQ", file.read(12))
        return [_value(file, of) for _ in range(length)]
    return _number(file, _SCALARS[kind])
