"""What can go wrong, by stage: a public sentence, a code, and whether trying again can help."""

from __future__ import annotations

from typing import ClassVar


class CrosscutError(Exception):
    """Base of every error a user may see.

    `public` is one clear sentence that says what to change and holds no secret, path or signed URL; `detail` is for
    the log only; `code` is a stable lower_snake_case word; `retryable` says whether the same call may succeed later,
    and `after` in how many seconds, where the other side said so.
    """

    stage: ClassVar[str] = "crosscut"

    def __init__(
        self,
        public: str,
        *,
        code: str = "failed",
        retryable: bool = False,
        detail: str = "",
        after: float | None = None,
    ) -> None:
        super().__init__(public)
        self.public = public
        self.code = code
        self.retryable = retryable
        self.detail = detail
        self.after = after


class RequestError(CrosscutError):
    stage = "request"


class FetchError(CrosscutError):
    stage = "fetch"


class ProbeError(CrosscutError):
    stage = "probe"


class ConformError(CrosscutError):
    stage = "conform"


class VoiceError(CrosscutError):
    stage = "speak"


class MixError(CrosscutError):
    stage = "mix"


class SpliceError(CrosscutError):
    stage = "splice"


class DeliverError(CrosscutError):
    stage = "deliver"


class StorageError(CrosscutError):
    """The disk or the artifact store failed: full, read-only, damaged."""

    stage = "storage"


class SandboxError(CrosscutError):
    """A child process crashed, hung or passed a limit while it handled a file from outside."""

    stage = "sandbox"


class WebhookError(CrosscutError):
    """An event could not be handed to the address that asked for it."""

    stage = "webhook"


class ServerError(CrosscutError):
    """A crosscut server refused what its client asked for, or could not be reached."""

    stage = "server"
