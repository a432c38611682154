"""Voices for Piper that are made here: every phoneme a tone, in files of two kilobytes that ONNX Runtime runs."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

RATE = 22_050
PHONEMES = " !'\",-.:;?abcdefhijklmnopqrstuvwxyzæçðøŋœɐɑɒɔɕəɚɛɜɟɡɣɪɫɬɲɹɾʀʁʃʊʌʎʒʔʲˈˌːβθχᵻ0123456789"
STEP = 700
"""Samples a phoneme takes."""

FLOAT, INT64 = 1, 7


def make_voice(
    folder: Path, name: str = "en_US-tone-medium", *, pitch: float = 200.0, noise: float = 0.05, **changed: Any
) -> Path:
    """`NAME.onnx` and its description, whose fields are `changed`; `noise` is that of the model's random generator."""
    description = {
        "audio": {"sample_rate": RATE, "quality": "medium"},
        "espeak": {"voice": "en-us"},
        "language": {"code": name.partition("-")[0]},
        "inference": {"noise_scale": 0.667, "length_scale": 1, "noise_w": 0.8},
        "phoneme_type": "espeak",
        "num_symbols": 256,
        "num_speakers": 1,
        "speaker_id_map": {},
        "phoneme_id_map": {"_": [0], "^": [0], "$": [0]} | {sign: [at] for at, sign in enumerate(PHONEMES, 1)},
    }
    file = folder / f"{name}.onnx"
    file.write_bytes(tone_model(pitch, noise))
    file.with_name(f"{file.name}.json").write_text(json.dumps(description | changed))
    return file


def tone_model(pitch: float, noise: float) -> bytes:
    """Inputs and output as Piper's models have them. Phonemes are `STEP` samples long, and silent where their id is 0.

    As in a real voice what is random comes from `RandomNormalLike`, times `scales[0]`; `scales[1]` is the length.
    """
    nodes = [
        node("Cast", ["input"], "ids", to=FLOAT),
        node("Reshape", ["ids", "column_shape"], "column"),
        node("Gather", ["scales", "first"], "noise_scale"),
        node("Gather", ["scales", "second"], "length_scale"),
        node("Mul", ["length_scale", "step"], "steps"),
        node("Range", ["zero", "steps", "one"], "time"),
        node("Mul", ["column", "per_id"], "above"),
        node("Add", ["above", "lowest"], "pitches"),
        node("Mul", ["pitches", "time"], "phases"),
        node("Sin", ["phases"], "tones"),
        node("RandomNormalLike", ["tones"], "random"),
        node("Mul", ["random", "noise_scale"], "scaled"),
        node("Mul", ["scaled", "noise"], "noises"),
        node("Add", ["tones", "noises"], "loud"),
        node("Min", ["column", "most"], "audible"),
        node("Mul", ["loud", "audible"], "sounds"),
        node("Reshape", ["sounds", "sound_shape"], "output"),
    ]
    radians = 2 * 3.141592653589793 / RATE
    numbers = {"step": STEP, "zero": 0, "one": 1, "per_id": 4 * radians, "lowest": pitch * radians, "noise": noise}
    tensors = [tensor(name, "f", FLOAT, number) for name, number in (numbers | {"most": 0.3}).items()]
    tensors += [tensor(name, "q", INT64, index) for name, index in (("first", 0), ("second", 1))]
    tensors += [tensor("column_shape", "q", INT64, -1, 1), tensor("sound_shape", "q", INT64, 1, 1, 1, -1)]
    graph = b"".join(field(1, one) for one in nodes) + field(2, "tone") + b"".join(field(5, one) for one in tensors)
    graph += field(11, value("input", INT64, 1, "phonemes")) + field(11, value("input_lengths", INT64, 1))
    graph += field(11, value("scales", FLOAT, 3)) + field(12, value("output", FLOAT, 1, 1, 1, "samples"))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 15))


# The messages of onnx.proto3, ONNX 1.15: ModelProto is a field 1 (ir_version), 7 (graph) and 8 (opset_import).


def field(number: int, content: int | bytes | str) -> bytes:
    """A field of a protocol buffer: a number as a varint, all else with its length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    data = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def node(kind: str, inputs: list[str], output: str, **attributes: int) -> bytes:
    told = b"".join(field(5, field(1, name) + field(3, number) + field(20, 2)) for name, number in attributes.items())
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind) + told


def tensor(name: str, form: str, kind: int, *numbers: float) -> bytes:
    """A scalar for one number, else a list."""
    dims = field(1, len(numbers)) if len(numbers) > 1 else b""
    return dims + field(2, kind) + field(8, name) + field(9, struct.pack(f"<{len(numbers)}{form}", *numbers))


def value(name: str, kind: int, *dims: int | str) -> bytes:
    shape = b"".join(field(1, field(1 if isinstance(dim, int) else 2, dim)) for dim in dims)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))
