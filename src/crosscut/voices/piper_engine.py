"""Child: a model of Piper speaks. Nothing else imports Piper, so that its licence (GPL) stays out of our process."""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

# From 1.29 on ONNX Runtime tells its maker what it runs; it looks for this when it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from piper import (
    PhonemeType,
    PiperConfig,
    PiperVoice,
    SynthesisConfig,
    espeakbridge,  # noqa: F401 - Piper imports it when it is first needed, which a child cannot
)

from crosscut import pcm
from crosscut.errors import VoiceError
from crosscut.media import AUDIO_RATE
from crosscut.voices.spoken import record, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crosscut.sandbox import Job
    from crosscut.voices.spoken import Timed

    Sound = np.ndarray[Any, np.dtype[np.float32]]

SEED = 1
"""Of the noise that makes a voice lively: the same in every child, so the same text sounds the same."""
MOST_PHONEMES = 300
"""Spoken at once, about 20 s: the memory a model takes grows with them."""
RATES = range(8_000, 96_001)

_BORDER = re.compile(r"[.!?…。！？][\"'”’»)\]]*\s+")


@dataclass(frozen=True)
class _Heard:
    """Words, and the sample of the model's rate at which the first begins and the last ends."""

    tokens: list[str]
    start: int
    stop: int


def synthesize(job: Job, *, text: str, voice: str, speed: float) -> dict[str, Any]:
    """Speak into `job.outputs[0]` as mono PCM; answers `samples` and `words` as [text, start, end] in ms.

    The inputs are the model and its description (`.onnx.json`); `voice` is what errors call it.
    Raises VoiceError "bad_model", "unsupported_model" and "silent".
    """
    with _faults_of(voice):
        model = _loaded(job, voice)
    heard: list[_Heard] = []
    rate = model.config.sample_rate
    samples = record(job.outputs[0], rate, _sounds(model, text, voice, speed, heard))
    return {"samples": samples, "words": _timed(model, heard, samples * 1_000 // AUDIO_RATE)}


@contextmanager
def _faults_of(voice: str) -> Iterator[None]:
    """What ONNX Runtime and Piper raise is the model's fault; a lack of memory has no type of its own there."""
    try:
        yield
    except (VoiceError, MemoryError):
        raise
    except Exception as error:
        if "alloc" in str(error):
            raise MemoryError(str(error)) from error
        raise VoiceError(
            f"the voice “{voice}” is nothing that Piper can speak with: get its .onnx and .onnx.json files again, both"
            " from the same place",
            code="bad_model",
            detail=f"{type(error).__name__}: {error}",
        ) from error


def _loaded(job: Job, voice: str) -> PiperVoice:
    source, description = job.inputs
    config = PiperConfig.from_dict(json.loads(description.read()))
    if config.phoneme_type not in (PhonemeType.ESPEAK, PhonemeType.TEXT):
        raise VoiceError(
            f"the voice “{voice}” reads {config.phoneme_type.value}, which Piper alone cannot: choose another",
            code="unsupported_model",
        )
    if config.sample_rate not in RATES:
        raise ValueError(f"a sample rate of {config.sample_rate}")
    onnxruntime.set_seed(SEED)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(source.read(), sess_options=options, providers=["CPUExecutionProvider"])
    return PiperVoice(session=session, config=config)


def _sounds(model: PiperVoice, text: str, voice: str, speed: float, heard: list[_Heard]) -> Iterator[Sound]:
    """The sound of each sentence; `heard` learns which words are in it.

    Words that cannot be spoken are counted to those that come next, or to the last.
    """
    place, waiting = 0, list[str]()
    for sentence in sentences(text):
        waiting += sentence.split()
        with _faults_of(voice):
            sound = _sound(model, sentence, speed)
        start, stop = _audible(sound)
        if stop:
            heard.append(_Heard(waiting, place + start, place + stop))
            waiting = []
        place += len(sound)
        yield sound
    if heard:
        heard[-1].tokens.extend(waiting)


def sentences(text: str) -> list[str]:
    """`text` cut behind its sentences; "5 p.m. tomorrow" is none."""
    ends = [match.end() for match in _BORDER.finditer(text)]
    ends = [end for end in ends if not text[end : end + 1].islower()]
    return [text[start:end] for start, end in pairwise([0, *ends, len(text)]) if start < end]


def _sound(model: PiperVoice, sentence: str, speed: float) -> Sound:
    """As loud as the model makes it: the mix measures and sets the loudness."""
    # Piper takes what stands in double brackets for phonemes.
    phonemes = model.phonemize(re.sub(r"\[(?=\[)", "[ ", sentence))
    manner = SynthesisConfig(length_scale=model.config.length_scale / speed)
    pieces = [np.zeros(0, np.float32)]
    for piece in (piece for spoken in phonemes for piece in _pieces(spoken)):
        if any(phoneme.isalnum() and phoneme in model.config.phoneme_id_map for phoneme in piece):
            sound = model.phoneme_ids_to_audio(model.phonemes_to_ids(piece), manner)
            pieces.append(np.asarray(sound, np.float32).reshape(-1))
    return np.concatenate(pieces)


def _pieces(phonemes: list[str]) -> Iterator[list[str]]:
    """At most `MOST_PHONEMES` each, cut behind a comma or else a word where there are any."""
    while len(phonemes) > MOST_PHONEMES:
        spaces = [place for place in range(1, MOST_PHONEMES) if phonemes[place] == " "]
        commas = [place for place in spaces if phonemes[place - 1] in ",;:" and place > MOST_PHONEMES // 2]
        cut = (commas or spaces or [MOST_PHONEMES - 1])[-1] + 1
        yield phonemes[:cut]
        phonemes = phonemes[cut:]
    yield phonemes


def _audible(sound: Sound) -> tuple[int, int]:
    """Without the silence at both ends; (0, 0) where there is nothing else."""
    levels = np.abs(sound)
    loud = np.flatnonzero(levels > max(levels.max(initial=0) * pcm.TRIM, pcm.SILENCE))
    return (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (0, 0)


def _timed(model: PiperVoice, heard: list[_Heard], end: int) -> list[Timed]:
    """The words of a sentence share its time by their phonemes: "$5," is longer than "for"."""
    words: list[Timed] = []
    for part in heard:
        weights = [1 + sum(map(len, model.phonemize(token.replace("[[", "")))) for token in part.tokens]
        start, stop = (min(place * 1_000 // model.config.sample_rate, end) for place in (part.start, part.stop))
        spans = spread(start, stop, weights)
        words += [(token, *span) for token, span in zip(part.tokens, spans, strict=True)]
    return words
