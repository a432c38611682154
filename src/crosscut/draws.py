"""Which track a variation gets: seeded draws that are even and can be asked for in any order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Draws:
    """One of `tracks` numbers for each position: random-looking, even in every prefix, and without state.

    A draw depends on (seed, salt, tracks, position) alone, by BLAKE2b, on every platform and version. Each stretch of
    `tracks` positions shows every track once, in an order of its own; different salts are independent.
    """

    seed: int
    tracks: int
    salt: str

    def draw(self, position: int, allowed: Sequence[int] | None = None) -> int:
        """The track at `position`; of the `allowed` ones, the next in the order of that stretch."""
        if self.tracks < 1 or (allowed is not None and not allowed):
            raise ValueError("nothing to draw from")
        stretch, place = divmod(position, self.tracks)
        order = _shuffled(self.seed, self.salt, self.tracks, stretch)
        if allowed is None:
            return order[place]
        return next(track for track in order[place:] + order[:place] if track in allowed)


@lru_cache(maxsize=64)
def _shuffled(seed: int, salt: str, tracks: int, stretch: int) -> tuple[int, ...]:
    def key(track: int) -> bytes:
        return hashlib.blake2b(f"{seed}/{salt}/{stretch}/{track}".encode(), digest_size=16).digest()

    return tuple(sorted(range(tracks), key=key))
