"""How often each asked in the last minute, as one process counts for itself."""

from __future__ import annotations

import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from crosscut.commons import Standing


class OwnCounts:
    """Implements `commons.Counts`."""

    def __init__(self) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def hit(self, key: str, most: int) -> Standing:
        item = RateLimitItemPerMinute(most)
        allowed = self._limiter.hit(item, key)
        stats = self._limiter.get_window_stats(item, key)
        return Standing(allowed, stats.remaining if allowed else 0, max(0.0, stats.reset_time - time.time()))
