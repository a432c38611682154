"""How the API behaves; decided once, by whoever starts it."""

from __future__ import annotations

from dataclasses import dataclass

LOCAL = "local"
"""Owner of everything where no keys are asked for."""


@dataclass(frozen=True)
class ApiOptions:
    auth: bool = False
    """Whether a key is needed; without, only names of this machine and `allowed_hosts` are answered."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names without port that may stand in the Host header besides those of this machine."""
    admin_token: str | None = None
    """What this machine's own command line shows to manage keys; None: nobody can over HTTP."""
    rate_per_minute: int | None = 600
    """Most POST requests of one owner, and a tenth of the uploads; None: no limit."""
    wrong_keys_per_minute: int = 20
    """Wrong keys one address may try."""
    body_bytes: int = 1 << 20
    """Largest JSON document."""
    upload_bytes: int = 2 << 30
    """Largest uploaded source."""
    patience: float = 30.0
    """Seconds a JSON document may take to arrive, and an upload may pause."""
    plan_wait: float = 30.0
    """Seconds POST /plan waits for the plan before it answers where to look."""
    poll: float = 0.5
    """Seconds between two looks at a job on behalf of all who follow it."""
    version: str = "0"
