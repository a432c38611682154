"""An answer of ElevenLabs as it is kept: its sound in base64, the times of its characters, what was charged."""

from __future__ import annotations

import base64
import io
import wave
from typing import TYPE_CHECKING, Any

from crosscut.disk import storage_errors
from crosscut.errors import MixError, ProbeError, SandboxError, VoiceError
from crosscut.media import AUDIO_RATE
from crosscut.voices import alignment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from crosscut.sandbox import Sandbox
    from crosscut.voices.replies import Reply

FORMATS = ("pcm_44100", "mp3_44100_128")
"""In the order of preference; the first is for the larger plans only, the last for all."""
PCM_RATE = 44_100
HASTIEST = 60
"""Letters a second: a sound shorter than that cannot be the whole text."""
LONGEST_SECONDS = 3_600
UNPLAYABLE = frozenset({"damaged", "decoder_crashed", "time", "output_too_large"})
"""Codes of SandboxError that are the sound's fault."""


def bought(reply: Reply, form: str, characters: int) -> dict[str, Any] | None:
    """What to keep, whatever it is worth; None where nothing was sold."""
    if reply.kind != "answer":
        return None
    billed = reply.number("character-cost", "x-character-count")
    sound = getattr(reply.body, "audio_base_64", None)
    if not isinstance(sound, str) and not billed:
        return None
    told = getattr(reply.body, "alignment", None)
    names = ("characters", "character_start_times_seconds", "character_end_times_seconds")
    return {
        "format": form,
        "audio_base64": sound if isinstance(sound, str) else None,
        "alignment": {name: getattr(told, name, None) for name in names},
        "billed": characters if billed is None else billed,
    }


def decode(sandbox: Sandbox, text: str, answer: Mapping[str, Any], output: Path) -> int:
    """Write the sound as mono PCM and say how many samples it has.

    Raises VoiceError "bad_audio" where it cannot be played, or cannot be the whole text.
    """
    scratch = output.with_name(f"{output.name}.bought")
    try:
        sound = _playable(answer)
        with storage_errors():
            scratch.write_bytes(sound)
        told = sandbox.run(
            "crosscut.pcm:decode_audio",
            arguments={"channels": 1, "max_seconds": LONGEST_SECONDS, "trim": False},
            inputs=[scratch],
            outputs=[output],
        )
    except (MixError, ProbeError, SandboxError, ValueError) as error:
        if isinstance(error, SandboxError) and error.code not in UNPLAYABLE:
            raise
        raise _bad_audio(str(error)) from error
    finally:
        scratch.unlink(missing_ok=True)
    samples = int(told["samples"])
    least = max((alignment.last_second(answer["alignment"]) or 0) / 2, sum(map(str.isalnum, text)) / HASTIEST)
    if told["loudness"] is None or samples < least * AUDIO_RATE:
        output.unlink()
        raise _bad_audio(f"{samples} samples of loudness {told['loudness']} where {least} seconds are the least")
    return samples


def _playable(answer: Mapping[str, Any]) -> bytes:
    """The sound as a file that says what it is; ValueError where there is none."""
    data = base64.b64decode(answer["audio_base64"] or "", validate=True)
    if not data:
        raise ValueError("the answer holds no sound")
    if not answer["format"].startswith("pcm_") or data.startswith(b"RIFF"):
        return data
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(PCM_RATE)
        sound.writeframes(data[: len(data) // 2 * 2])
    return file.getvalue()


def _bad_audio(detail: str) -> VoiceError:
    return VoiceError(
        "what ElevenLabs sent for this voice-over cannot be played; it is not bought again: reword it a little",
        code="bad_audio",
        detail=detail,
    )
