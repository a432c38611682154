"""What was bought of a provider: kept as it came, for ever, so that no line is paid for twice.

folder/bought/ab/<key>.json    answers, never evicted
folder/tries/<key>.json        how often a line was asked for without knowing what came of it
folder/locks/                  a bounded set of lock files, never deleted
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crosscut import files
from crosscut.artifacts import storage_errors
from crosscut.errors import StorageError, VoiceError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

MOST_TRIES = 2
"""A line may have been paid for so often without our having it."""
ROOM_BYTES = 128 * 2**20
"""Free space without which nothing is bought: more than the longest answer takes."""


@dataclass(frozen=True)
class Purchases:
    """Used from any thread and process; `key` is the SHA-256 (hex) of everything that was asked for.

    A purchase is: `locked`, `find`, `risk`, then `keep` or `spared`; what is done in between may end at any point.
    """

    folder: Path

    def owns(self, key: str) -> bool:
        with storage_errors():
            return self._bought(key).exists()

    def find(self, key: str) -> Any | None:
        return files.read_json(self._bought(key))

    def locked(self, key: str) -> AbstractContextManager[None]:
        """Keys share 4,096 lock files, so never ask for a second one while holding one."""
        return files.locked(self.folder / "locks" / f"{key[:3]}.lock")

    def keep(self, key: str, answer: Any) -> None:
        files.write_json(self._bought(key), answer)
        files.remove(self._tries(key))

    def tries(self, key: str) -> int:
        """How often it was asked for without knowing what came of it."""
        count = files.read_json(self._tries(key))
        return count if isinstance(count, int) else 0

    def risk(self, key: str) -> None:
        """Note, before it is asked for, that it may be paid for from now on.

        Raises VoiceError "voice_uncertain" where that was so too often, StorageError where there is no room for it.
        """
        tries = self.tries(key)
        if tries >= MOST_TRIES:
            raise uncertain()
        with storage_errors():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        if free < ROOM_BYTES:
            raise StorageError(
                "The disk is nearly full, so no voice-over is bought that could not be kept: free some space.",
                code="disk_full",
                retryable=True,
            )
        files.write_json(self._tries(key), tries + 1)

    def spared(self, key: str) -> None:
        """The last `risk` cost nothing after all."""
        tries = self.tries(key) - 1
        if tries > 0:
            files.write_json(self._tries(key), tries)
        else:
            files.remove(self._tries(key))

    def _bought(self, key: str) -> Path:
        return self.folder / "bought" / key[:2] / f"{key}.json"

    def _tries(self, key: str) -> Path:
        return self.folder / "tries" / f"{key}.json"


def uncertain() -> VoiceError:
    return VoiceError(
        f"this voice-over was asked for {MOST_TRIES} times without an answer, and each time may have been charged:"
        " it is not bought again; reword it to have it spoken",
        code="voice_uncertain",
    )
