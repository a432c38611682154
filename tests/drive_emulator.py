"""The part of Google Drive that crosscut uses, on a real socket: tokens, consent, ids, folders, queries, uploads.

What no client of ours may send is refused and remembered; leaving the emulator fails the test then. Of large bodies
only the checksums are kept.
"""

from __future__ import annotations

import json
import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from crosscut.virtual import Extent, VirtualFile
from drive_model import (
    CLIENT,
    FILE,
    FOLDER,
    KEPT_BYTES,
    REFRESH,
    ROBOT,
    SECRET,
    USER,
    Device,
    Fault,
    Holder,
    Node,
    Seen,
    Session,
)
from drive_server import Handler
from emulating import Emulating

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

    from crosscut.destinations import Destination


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
"""Of every service account: making one takes a while."""


@dataclass
class Emulator(Emulating):
    readable: int = KEPT_BYTES
    """Bodies up to this size are kept, of larger ones the checksums alone."""
    quota: int | None = None
    """Bytes the user may store."""
    page: int = 1000
    lag: float = 0.0
    """Seconds until something new is listed."""
    faults: list[Fault] = field(default_factory=list)
    chaos: float = 0.0
    """The share of requests that meet one of `PASSING`, drawn from `seed`."""
    seed: int = 0
    consents: bool = True
    """What the person at the consent page does."""
    granted: str = FILE
    refresh_error: str | None = None
    drives: dict[str, dict[str, str]] = field(default_factory=dict)
    """Roles of members by Shared Drive."""
    delegated: set[str] = field(default_factory=set)
    nodes: dict[str, Node] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    most_at_once: int = 0
    tokens_given: int = 0

    def __post_init__(self) -> None:
        self.key = KEY
        self.tokens: dict[str, Holder] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.ids: set[str] = set()
        self.at_once = 0
        self.draw = random.Random(self.seed)
        self.serve(Handler)

    def service_account(self, path: Path, email: str = ROBOT) -> Path:
        """Write the key file of one."""
        private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        facts = {
            "type": "service_account",
            "client_email": email,
            "private_key": private.decode(),
            "private_key_id": "1",
            "token_uri": f"{self.url}/token",
        }
        path.write_text(json.dumps(facts))
        return path

    def consent_file(self, path: Path) -> Path:
        """Write what `crosscut auth google` keeps."""
        facts = {"account": USER, "client_id": CLIENT, "client_secret": SECRET, "refresh_token": REFRESH}
        path.write_text(json.dumps(facts))
        return path

    def make_drive(self, **members: str) -> str:
        """A Shared Drive, whose id is that of its root folder."""
        drive = f"0A{secrets.token_urlsafe(12)}"
        self.drives[drive] = {name: role for name, role in members.items() if name}
        self.nodes[drive] = Node(drive, "Drive", FOLDER, "", None, drive=drive)
        return drive

    def make_folder(self, name: str, owner: str = USER) -> str:
        """One that a person has made by hand."""
        folder = secrets.token_urlsafe(24)
        self.nodes[folder] = Node(folder, name, FOLDER, owner, None)
        return folder

    def decide(self, typed: str, decided: str = "allowed") -> None:
        """What the person does who has typed the code."""
        next(device for device in self.devices.values() if device.typed == typed).decided = decided

    def forget_tokens(self) -> None:
        with self.lock:
            self.tokens.clear()

    def expire_sessions(self) -> None:
        with self.lock:
            self.sessions.clear()

    def is_trashed(self, node: Node) -> bool:
        above = self.nodes.get(node.parent) if node.parent else None
        return node.trashed or (above is not None and self.is_trashed(above))

    def children(self, folder: str) -> list[Node]:
        """What somebody sees who opens the folder with this name."""
        with self.lock:
            above = {n.id for n in self.nodes.values() if n.name == folder and n.mime == FOLDER}
            return [n for n in self.nodes.values() if n.parent in above and not self.is_trashed(n)]

    def folders(self, name: str) -> list[Node]:
        with self.lock:
            return [n for n in self.nodes.values() if n.name == name and n.mime == FOLDER and not self.is_trashed(n)]

    def count(self, method: str, text: str) -> int:
        return sum(seen.method == method and text in f"{seen.path} {seen.content_range}" for seen in self.seen)

    def received(self) -> int:
        """Bytes of bodies that came in, over all sessions that are known."""
        return sum(session.received for session in self.sessions.values())


def deliver(destination: Destination, file: VirtualFile) -> None:
    """What another process does."""
    with destination.open("task") as delivery:
        delivery.put("1.mp4", file)


def deliver_the_same(destination: Destination, start: Barrier) -> None:
    """Six files of a thousand bytes, each twice, as soon as all are ready."""
    start.wait(60)

    def put(number: int) -> None:
        with destination.open("task") as delivery:
            delivery.put(f"{number}.mp4", VirtualFile([Extent(bytes([number]) * 1000, 0, 1000)]))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(put, [*range(6), *range(6)]))
