"""Where the bodies of two slots meet: the last frames of one and the first of the other, encoded as they are heard.

A slot is what is heard while a clip is shown: the clip's own sound, and the voice-overs that are spoken in it. Its body
is encoded once, beginning at an AAC frame, in silence. Access unit number n of a body covers its samples
(n - 1) 1024 to (n + 1) 1024, so the first unit is shared with the slot before, and is always a seam's. A seam begins
`LOOK_BACK` units before sound changes, and goes on in the next body until both use the same windows there; from then
on, and before, units of the bodies stand as they are.

The tail of a soundtrack is a seam with silence. Functions with a `job` run in a sandbox child.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from crosscut import aac
from crosscut.blend import fade_gain
from crosscut.loudness import Meter, Profile, Signal
from crosscut.media import AAC_FRAME
from crosscut.mix import DIPS, LOOK_BACK, PRE_ROLL, TRUE_PEAK, WARM_UP, read_mix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosscut.sandbox import Job

QUIET = 4
"""Frames of silence at the end of a body: the last unit is one of silence, and goes on for as long as it is needed."""
REACHES = (4, 24)
"""Units of the next body within which its windows are to be met; the second only where the first was too few."""
AHEAD = 2
"""Frames that the encoder sees before it chooses a window."""


@dataclass(frozen=True)
class Seam:
    """Units `skip` to `skip + count` of a file; they stand for those from number `first` of one body to number `reach`
    of the next one, included. The profile is for each frame of samples, from frame `lead` of the first body on.
    """

    first: int
    skip: int
    count: int
    reach: int
    lead: int


def render_seam(job: Job, *, frames: int, fade: int) -> dict[str, Any]:
    """Child: mix and AAC of a body that is heard for so many `frames`, and those of the next one -> seam and `Profile`.

    Without a next one silence follows. The first sound is faded out in its last `fade` samples. Answers `seam`, None
    where the bodies cannot be met, and `frames`, those that the profile tells of.
    """
    out, stored = job.outputs
    with aac.Reader(job.inputs[1]) as units:
        before = _Side(job.inputs[0], units)
        if len(job.inputs) == 2:
            joint = _Joint(before, None, frames, fade, out)
            return _rendered(joint, stored)
        with aac.Reader(job.inputs[3]) as next_units:
            joint = _Joint(before, _Side(job.inputs[2], next_units), frames, fade, out)
            return _rendered(joint, stored)


def _rendered(joint: _Joint, stored: BinaryIO) -> dict[str, Any]:
    made = joint.meet()
    if made is None:
        return {"seam": None, "frames": 0}
    seam, units = made
    for dip in DIPS:
        units = joint.encode(seam.first - seam.skip, seam.reach, dip) if dip else units
        profile = joint.profile(seam, units[seam.skip : seam.skip + seam.count])
        if profile.true_peak <= TRUE_PEAK:
            break
    stored.write(profile.to_bytes())
    return {"seam": vars(seam), "frames": len(profile.energy)}


@dataclass(frozen=True, eq=False)
class _Side:
    mix: BinaryIO
    reader: aac.Reader

    def sound(self, start: int, stop: int) -> Signal:
        """Of its frames `start` to `stop`; silence where it has ended."""
        sound = read_mix(self.mix, start * AAC_FRAME, stop * AAC_FRAME)
        return np.pad(sound, ((0, 0), (0, (stop - start) * AAC_FRAME - sound.shape[1])))

    def units(self, first: int, stop: int) -> list[bytes]:
        """Its units; the last one, of silence, as often as there are no more."""
        found = self.reader.units(first, stop)
        return found + [self.reader.units(self.count - 1, self.count)[0]] * (stop - first - len(found))

    @property
    def count(self) -> int:
        return aac.frames(self.mix.seek(0, 2) // 4)


@dataclass(frozen=True, eq=False)
class _Joint:
    """Two bodies, the first of which is heard for `frames`; units are counted from its beginning."""

    before: _Side
    after: _Side | None
    frames: int
    fade: int
    file: BinaryIO

    @property
    def first(self) -> int:
        return max(0, (self.frames * AAC_FRAME - self.fade) // AAC_FRAME - LOOK_BACK)

    def meet(self) -> tuple[Seam, list[bytes]] | None:
        """The shortest seam that meets both, and all its units, those before it too."""
        skip = min(PRE_ROLL, self.first)
        for reach in REACHES:
            units = self.encode(self.first - skip, reach, 0.0)
            met = self._reach(units[self.frames - self.first + skip :], reach)
            if not self._begins_well(units[skip - 1]):
                return None
            if met is not None:
                count = self.frames + met + 1 - self.first
                return Seam(self.first, skip, count, met, max(self.first - 1, 0)), units
        return None

    def _begins_well(self, unit: bytes) -> bool:
        """Whether the one before the seam could stand for the first body's; at its beginning there is none."""
        return self.first == 0 or _agree(unit, self.before.units(self.first - 1, self.first)[0])

    def _reach(self, units: Sequence[bytes], reach: int) -> int | None:
        """The number of the first unit of the next body that has the windows of the seam's."""
        if self.after is None:
            return AHEAD
        pairs = zip(units[1 : reach + 1], self.after.units(1, reach + 1), strict=True)
        return next((number for number, (ours, theirs) in enumerate(pairs, 1) if _agree(ours, theirs)), None)

    def encode(self, start: int, reach: int, dip: float) -> list[bytes]:
        """From frame `start` of the first body to so many units of the next one, lowered in between by `dip`."""
        sound = self.before.sound(start, self.frames)
        sound[:, sound.shape[1] - self.fade :] *= fade_gain(self.fade)
        more = reach + AHEAD
        after = np.zeros((2, more * AAC_FRAME), np.float32) if self.after is None else self.after.sound(0, more)
        whole = np.concatenate([sound, after], axis=1)
        if dip:
            begin, border = (self.first - start) * AAC_FRAME, sound.shape[1]
            places = [begin, begin + AAC_FRAME, border, border + max(reach - 1, 1) * AAC_FRAME]
            whole *= (1 - np.interp(np.arange(whole.shape[1]), places, [0, dip, dip, 0])).astype(np.float32)
        with aac.Encoder(self.file) as encoder:
            return [*encoder.encode(whole), *encoder.finish()]

    def profile(self, seam: Seam, units: Sequence[bytes]) -> Profile:
        """Of the decoded sound from frame `lead` of the first body to frame `reach` of the next one."""
        start = max(0, seam.first - WARM_UP)
        behind = [] if self.after is None else self.after.units(seam.reach + 1, seam.reach + 1 + AHEAD)
        decoder = aac.Decoder(self.before.reader.extradata)
        meter = Meter(hop=AAC_FRAME)
        meter.push(decoder.decode([*self.before.units(start, seam.first), *units, *behind]))
        found = meter.finish()
        stop = self.frames + (seam.reach if self.after is None else seam.reach + 1) - start
        span = slice(seam.lead - start, stop)
        return Profile((stop - seam.lead + start) * AAC_FRAME, found.energy[span], found.peak[span])


def _agree(ours: bytes, theirs: bytes) -> bool:
    return aac.windows(ours) == aac.windows(theirs)
