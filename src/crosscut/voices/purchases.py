"""What was bought of a provider: kept as it came, for ever, so that no line is paid for twice.

bought/ab/<key>.json    answers, never evicted
tries/<key>.json        a word for each time a line was asked for without knowing what came of it
locks/abc.lock          who buys one of the lines whose keys begin so
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from typing import TYPE_CHECKING, Any

from crosscut.commons import told
from crosscut.disk import storage_errors
from crosscut.errors import StorageError, VoiceError
from crosscut.files import FileNotes, shared_in

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from crosscut.commons import Shared

MOST_TRIES = 2
"""A line may have been paid for so often without our having it."""
ROOM_BYTES = 128 * 2**20
"""Free space without which nothing is bought: more than the longest answer takes."""
PATIENCE_SECONDS = 30.0
"""So long a database that is started again is waited for with an answer in hand."""
PAUSE_SECONDS = 1.0


class Purchases:
    """Used from any thread and process; `key` is the SHA-256 (hex) of everything that was asked for.

    A purchase is: `locked`, `find`, `risk`, then `keep` or `spared`; what is done in between may end at any point.
    Whoever lost the lock without being told may buy beside another; both took the risk, which is counted exactly.
    """

    def __init__(self, folder: Path, shared: Shared | None = None, patience: float = PATIENCE_SECONDS) -> None:
        """All who have `shared` buy together; without it, those who have the folder.

        In the folder is also what could not be told to the others for `patience` seconds, or was bought before there
        were any: who looks for it there tells them.
        """
        self.folder = folder
        self._shared = shared or shared_in(folder)
        self._notes = self._shared.notes
        self._own = FileNotes(folder) if shared else None
        self._patience = patience

    def owns(self, key: str) -> bool:
        return self._notes.has(_bought(key)) or (self._own is not None and self._own.has(_bought(key)))

    def find(self, key: str) -> Any | None:
        answer = self._shared.read(_bought(key))
        if answer is None and self._own is not None:
            answer = told(self._own.get(_bought(key)))
            if answer is not None:
                return self._told(key, answer)
        return answer

    def tell_others(self) -> None:
        """Hand what is in the folder alone to all who buy together."""
        for path in sorted(self.folder.glob("bought/*/*.json")):
            if not self._notes.has(_bought(path.stem)):
                self.find(path.stem)

    def locked(self, key: str) -> AbstractContextManager[None]:
        """Keys share 4,096 locks, so never ask for a second one while holding one."""
        return self._shared.locked(f"locks/{key[:3]}.lock")

    def keep(self, key: str, answer: Any) -> Any:
        """The answer that all have from now on: the first one, should two have been bought."""
        end = time.monotonic() + self._patience
        while True:
            try:
                return self._told(key, answer)
            except StorageError:
                if self._own is None:
                    raise
                if time.monotonic() >= end:
                    self._own.put(_bought(key), json.dumps(answer))
                    return answer
                time.sleep(PAUSE_SECONDS)

    def _told(self, key: str, answer: Any) -> Any:
        known = self._notes.get(_bought(key))
        damaged = known if told(known) is None else None
        # Not-a-number is kept as Python reads it again: what was paid for is not lost because it is odd.
        kept = self._notes.put_once(_bought(key), json.dumps(answer), instead_of=damaged)
        self._notes.forget(_tries(key))
        return told(kept)

    def tries(self, key: str) -> int:
        """How often it was asked for without knowing what came of it."""
        return len(_doubts(self._notes.get(_tries(key))))

    def risk(self, key: str) -> str:
        """Note, before it is asked for, that it may be paid for from now on; the word for `spared`.

        Raises VoiceError "voice_uncertain" where that was so too often, StorageError where there is no room for it.
        """
        self._look_for_room()
        mine = secrets.token_hex(4)
        while True:
            note = self._notes.get(_tries(key))
            doubts = _doubts(note)
            if len(doubts) >= MOST_TRIES:
                raise uncertain()
            if self._replaced(key, note, [*doubts, mine]):
                return mine

    def spared(self, key: str, word: str) -> None:
        """That `risk` cost nothing after all."""
        while True:
            note = self._notes.get(_tries(key))
            doubts = _doubts(note)
            # The note stays, though it be empty: to forget it could be to forget a doubt that was added just now.
            if word not in doubts or self._replaced(key, note, [doubt for doubt in doubts if doubt != word]):
                return

    def _replaced(self, key: str, note: str | None, doubts: list[str]) -> bool:
        wanted = json.dumps(doubts)
        return self._notes.put_once(_tries(key), wanted, instead_of=note) == wanted

    def _look_for_room(self) -> None:
        with storage_errors():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        if free < ROOM_BYTES:
            raise StorageError(
                "The disk is nearly full, so no voice-over is bought that could not be kept: free some space.",
                code="disk_full",
                retryable=True,
            )


def _bought(key: str) -> str:
    return f"bought/{key[:2]}/{key}.json"


def _tries(key: str) -> str:
    return f"tries/{key}.json"


def _doubts(note: str | None) -> list[str]:
    doubts = told(note)
    if isinstance(doubts, int):  # a number, as it once was noted
        return ["before"] * doubts
    return doubts if isinstance(doubts, list) else []


def uncertain() -> VoiceError:
    return VoiceError(
        f"this voice-over was asked for {MOST_TRIES} times without an answer, and each time may have been charged:"
        " it is not bought again; reword it to have it spoken",
        code="voice_uncertain",
    )
