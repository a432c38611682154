"""PCM files: sound decoded from media, trimmed and stretched, to be read in any part.

Interleaved float32, little endian, 48 kHz, one or two channels; nothing before or behind the samples.
"""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, BinaryIO

import av
import numpy as np
from av.filter import Graph

from crosscut import decode
from crosscut.errors import MixError
from crosscut.loudness import BLOCK_HOPS, CHUNK, HOP, Meter, Profile, Signal, ratio
from crosscut.media import AUDIO_RATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from av.audio.frame import AudioFrame
    from av.frame import Frame
    from numpy.typing import NDArray

    from crosscut.sandbox import Job

SHORTEST = AUDIO_RATE // 10
SILENCE = ratio(-80)
TRIM = ratio(-50)
"""Sound this far below the peak counts as silence at the beginning and the end."""
HEADROOM = 8.0
"""Decoded floats may pass full scale, but not by more than any decoder means to."""
JITTER = Fraction(1, 50)
"""Seconds that the time of a frame may be off: clocks of containers are coarse, those of recorders uneven. More is a
gap in the sound; a picture and its sound are seen apart from about twice as much on (ITU-R BT.1359-1)."""
FASTEST = Fraction(5, 4)
"""Speech that is sped up more sounds hurried."""


@dataclass(frozen=True)
class Sound:
    """A PCM file: `loudness` in LUFS (None: silent), `true_peak` in dBTP.

    `energy` has the K-weighted mean square of every hop as base64 of float32; where it ends is silence.
    """

    samples: int
    loudness: float | None
    true_peak: float
    energy: str = ""

    @property
    def hops(self) -> NDArray[np.float32]:
        return np.frombuffer(base64.b64decode(self.energy), "<f4")


def count(pcm: BinaryIO, channels: int) -> int:
    return pcm.seek(0, 2) // (4 * channels)


def read(pcm: BinaryIO, channels: int, start: int, stop: int) -> Signal:
    """What there is of this part: it is shorter where the file ends."""
    pcm.seek(start * channels * 4)
    data = pcm.read(max(stop - start, 0) * channels * 4)
    return np.frombuffer(data, "<f4").reshape(-1, channels).T.astype(np.float32, order="C")


def write(pcm: BinaryIO, signal: Signal) -> None:
    pcm.write(np.ascontiguousarray(signal.T, "<f4").data)


def decode_audio(job: Job, *, channels: int, max_seconds: int, trim: bool, skip: int = 0) -> dict[str, Any]:
    """Child: a media file -> a PCM file of at most `max_seconds`; the answer is a `Sound`.

    `trim` takes silence off both ends, but none off a beginning that was chosen: `skip` samples are left out there.
    Raises MixError "no_audio", "start_too_late" and "too_short".
    """
    (pcm,) = job.outputs
    place, stop = 0, skip + max_seconds * AUDIO_RATE
    with decode.open_media(job.inputs[0]) as container:
        stream = decode.audio_stream(container)
        frames = [] if stream is None else decode.decoded(container, stream, max_frames=-(-stop // AUDIO_RATE) * 1_000)
        for piece in resampled(frames, "stereo" if channels == 2 else "mono"):
            write(pcm, piece[:, max(skip - place, 0) : stop - place])
            place += piece.shape[1]
            if place >= stop:
                break
    if skip and 0 < place < skip + SHORTEST:
        raise MixError(
            f"this sound ends after {place / AUDIO_RATE:.1f} s and shall begin at {skip / AUDIO_RATE:.1f} s:"
            " send a smaller start",
            code="start_too_late",
        )
    if not place:
        raise MixError("there is no sound in this file; use one with an audio track", code="no_audio")
    if trim:
        _trim(pcm, channels, keep_start=skip > 0)
    sound = _measured(pcm, channels)
    if sound.samples < SHORTEST:
        raise MixError("this sound is shorter than a tenth of a second; use a longer one", code="too_short")
    return asdict(sound)


def decode_clip(job: Job, *, start: str, samples: int) -> dict[str, Any]:
    """Child: a clip -> the stereo PCM of exactly `samples` that belong to its pictures from `start` on; a `Sound`.

    `start` is in seconds after its first picture, an exact fraction as text. What the clip has no sound for is
    silence; so is all of one without an audio stream.
    """
    (pcm,) = job.outputs
    begin = _first_picture(job.inputs[0]) + Fraction(start)
    job.inputs[0].seek(0)
    with decode.open_media(job.inputs[0]) as container:
        stream = decode.audio_stream(container)
        for place, piece in _placed([] if stream is None else decode.decoded(container, stream), begin):
            if place >= samples:
                break
            first = max(-place, 0)
            pcm.seek((place + first) * 8)
            write(pcm, piece[:, first : samples - place])
    pcm.truncate(samples * 8)
    return asdict(_measured(pcm, 2))


def _first_picture(file: BinaryIO) -> Fraction:
    """When it is shown, in seconds of the file's clock; 0 where there is none."""
    with decode.open_media(file) as container:
        stream = decode.video_stream(container)
        for frame in [] if stream is None else decode.decoded(container, stream):
            return _time(frame)
    return Fraction(0)


def _time(frame: Frame) -> Fraction:
    """Seconds; `decoded` lets no frame through that has none."""
    assert frame.pts is not None
    assert frame.time_base is not None
    return frame.pts * frame.time_base


def _placed(frames: Iterable[AudioFrame], begin: Fraction) -> Iterator[tuple[int, Signal]]:
    """Stereo pieces at 48 kHz and where they belong, in samples after `begin`; frames that follow each other stay so.

    A frame that is further than `JITTER` from where the one before it ended is put in its own place.
    """
    run, expected = 0, Fraction(0)

    def number(frame: AudioFrame) -> int:
        nonlocal run, expected
        time = _time(frame)
        if run == 0 or abs(time - expected) > JITTER:
            run, expected = run + 1, time
        expected += Fraction(frame.samples, frame.sample_rate)
        return run

    for _, together in groupby(frames, key=number):
        first = next(together)
        place = round((_time(first) - begin) * AUDIO_RATE)
        for piece in resampled(chain([first], together), "stereo"):
            yield place, piece
            place += piece.shape[1]


def measure_speech(job: Job) -> dict[str, Any]:
    """Child: a mono PCM file -> its `Sound`."""
    return asdict(_measured(job.inputs[0], 1))


def stretch(job: Job, *, factor: float) -> dict[str, Any]:
    """Child: a mono PCM file -> the same words and pitch, `factor` (1 to `FASTEST`) times as fast; a `Sound`."""
    if not 1 <= factor <= FASTEST:
        raise MixError(f"speech can be sped up to {float(FASTEST)} times, not {factor}", code="too_fast")
    source, (target,) = job.inputs[0], job.outputs
    graph = Graph()
    head = graph.add_abuffer(sample_rate=AUDIO_RATE, format="flt", layout="mono", time_base=Fraction(1, AUDIO_RATE))
    graph.link_nodes(head, graph.add("atempo", f"{factor:.6f}"), graph.add("abuffersink")).configure()
    wanted = round(count(source, 1) / factor)
    for start in range(0, count(source, 1), CHUNK):
        frame = av.AudioFrame.from_ndarray(read(source, 1, start, start + CHUNK), format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, start, Fraction(1, AUDIO_RATE)
        graph.push(frame)
        _drain(graph, target)
    graph.push(None)
    _drain(graph, target)
    missing = wanted - count(target, 1)
    target.truncate(wanted * 4)
    write(target, np.zeros((1, max(missing, 0)), np.float32))
    return asdict(_measured(target, 1))


def _drain(graph: Graph, target: BinaryIO) -> None:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(frame, av.AudioFrame)
        write(target, np.asarray(frame.to_ndarray(), np.float32))


def resampled(frames: Iterable[AudioFrame], layout: str) -> Iterator[Signal]:
    """Frames of any shape at 48 kHz; a stream may change its shape on the way, a resampler may not."""
    for _, run in groupby(frames, key=lambda frame: (frame.format.name, frame.layout.name, frame.sample_rate)):
        resampler = av.AudioResampler("fltp", layout, AUDIO_RATE)
        for frame in chain(run, (None,)):
            for piece in resampler.resample(frame):
                sound = np.nan_to_num(piece.to_ndarray(), nan=0.0, posinf=0.0, neginf=0.0)
                yield np.asarray(sound.clip(-HEADROOM, HEADROOM), np.float32)


def _measured(pcm: BinaryIO, channels: int) -> Sound:
    """A sound shorter than a gating block is measured with silence behind it."""
    meter = Meter()
    samples = count(pcm, channels)
    for start in range(0, samples, CHUNK):
        meter.push(read(pcm, channels, start, start + CHUNK))
    meter.push(np.zeros((channels, max(BLOCK_HOPS * HOP - samples, 0)), np.float32))
    profile = meter.finish()
    return sound_of(profile, samples)


def sound_of(profile: Profile, samples: int) -> Sound:
    """What `profile` tells of the first `samples`, behind which it heard silence."""
    energy = profile.energy[: -(-samples // HOP)].astype("<f4").tobytes()
    return Sound(samples, profile.loudness, profile.true_peak, base64.b64encode(energy).decode())


def _trim(pcm: BinaryIO, channels: int, *, keep_start: bool) -> None:
    """Move the sound between the silences to the start of the file and cut the file behind it."""
    start, stop = audible(pcm, channels)
    start = 0 if keep_start else start
    for place in range(start, stop, CHUNK):
        piece = read(pcm, channels, place, min(place + CHUNK, stop))
        pcm.seek((place - start) * channels * 4)
        write(pcm, piece)
    pcm.truncate((stop - start) * channels * 4)


def audible(pcm: BinaryIO, channels: int) -> tuple[int, int]:
    samples, window = count(pcm, channels), AUDIO_RATE // 100
    peaks = []
    for place in range(0, samples, CHUNK):
        piece = np.abs(read(pcm, channels, place, place + CHUNK)).max(axis=0)
        peaks.append(np.pad(piece, (0, -len(piece) % window)).reshape(-1, window).max(axis=1))
    levels = np.concatenate(peaks)
    loud = np.flatnonzero(levels > max(levels.max() * TRIM, SILENCE))
    if not len(loud):
        return 0, samples
    return int(loud[0]) * window, min((int(loud[-1]) + 1) * window, samples)
