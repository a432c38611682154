"""Signed events to addresses that jobs name: what they say, and one try to deliver one (standardwebhooks.com).

An address is a stranger's text like any source, so it is dialled through the guard, and a redirect is not followed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from datetime import UTC, datetime
from importlib.metadata import version
from secrets import token_bytes
from typing import TYPE_CHECKING, Any

import httpx2
from standardwebhooks import Webhook

from crosscut.errors import WebhookError
from crosscut.guard import USUAL_PORTS, Guard, RefusedError, checked_url, guarded_client, redact, resolve
from crosscut.transfer import retry_after, shown

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

    from crosscut.commons import Notes
    from crosscut.fields import Event
    from crosscut.guard import Resolver

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 10.0
ANSWER_BYTES = 4096
LONGEST_WAIT = 24 * 3600.0
"""A longer Retry-After is not meant seriously."""

ERRORS_TOLD = 5
SECRET_NOTE = "webhook-secret"  # noqa: S105 - its name, not its content


def event_body(event: Event, job: Mapping[str, Any], now: float) -> str:
    """The body of an event about the job with this status, as it is stored, signed and sent; `now` is epoch seconds."""
    data = {
        "id": job["id"],
        "task_name": job["task_name"],
        "state": job["state"],
        "total": job["total"],
        "succeeded": job["succeeded"],
        "failed": job["failed"],
        "errors": job["errors"][:ERRORS_TOLD],
        "folder": job["folder"],
        "passthrough": job["passthrough"],
        "links": job.get("links", {}),
    }
    timestamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return json.dumps({"type": event, "timestamp": timestamp, "data": data})


def deliver(
    payload: Mapping[str, Any],
    secrets: Sequence[str],
    allow: frozenset[tuple[str, int]],
    cancelled: threading.Event,
    *,
    ports: frozenset[int] = USUAL_PORTS,
    resolver: Resolver = resolve,
    clock: Callable[[], float] = time.time,
    seconds: float = TOTAL_SECONDS,
) -> None:
    """Post `payload["body"]` to `payload["url"]` once, signed with every secret; WebhookError if it was not taken.

    `payload["id"]` stays the same over all tries, so that a receiver can drop what it has; `allow` is the guard's.
    """
    assert secrets, "an event is signed"
    label = _label(payload["url"])
    watch = _deadline(label, seconds, cancelled)
    guard = Guard(allow=allow, ports=ports, resolver=resolver, watch=watch)
    body = payload["body"].encode()
    headers = _headers(payload["id"], payload["body"], secrets, clock())
    timeout = httpx2.Timeout(seconds, connect=CONNECT_SECONDS)
    try:
        url = checked_url(payload["url"])
        with (
            guarded_client(guard, timeout, headers) as client,
            client.stream("POST", url, content=body) as response,
        ):
            _judge(response, label)
    except RefusedError as error:
        # A certificate is mended more often than an address.
        retryable = error.code == "tls"
        raise WebhookError(f"{label} {error.reason}.", code=error.code, retryable=retryable) from error
    except httpx2.TimeoutException as error:
        raise _too_late(label, seconds) from error
    except httpx2.ConnectError as error:
        raise _again(f"{label} cannot be reached; check its host name.", "unreachable", error) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise _again(f"{label} gave an answer that is not proper HTTP.", "bad_response", error) from error


def _deadline(label: str, seconds: float, cancelled: threading.Event) -> Callable[[], None]:
    """What breaks a delivery off when it has taken all its time, or is not wanted any more."""
    end = time.monotonic() + seconds

    def watch() -> None:
        if cancelled.is_set():
            raise WebhookError(f"{label} was not told: the work was cancelled.", code="cancelled", retryable=True)
        if time.monotonic() >= end:
            raise _too_late(label, seconds)

    return watch


def _headers(message: str, body: str, secrets: Sequence[str], now: float) -> dict[str, str]:
    moment = datetime.fromtimestamp(int(now), UTC)
    signatures = [Webhook(secret).sign(message, moment, body) for secret in secrets]
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": " ".join(signatures),
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"crosscut/{version('crosscut')}",
    }


def _judge(response: httpx2.Response, label: str) -> None:
    """Raise unless the receiver took the event; only then is its answer looked at, for the log."""
    status = response.status_code
    if response.is_success:
        return
    after = retry_after(response.headers.get("retry-after"))
    after = after if after is not None and 0 < after <= LONGEST_WAIT else None
    if status == httpx2.codes.GONE:
        raise WebhookError(f"{label} wants no more events (HTTP 410); give the next job another webhook.", code="gone")
    if response.is_redirect:
        said = f"{label} redirects (HTTP {status}); give the address it redirects to."
    elif status == httpx2.codes.TOO_MANY_REQUESTS or status >= 500:
        said = f"{label} cannot take events now (HTTP {status})."
    else:
        said = f"{label} refused the event (HTTP {status}); check what receives it."
    raise WebhookError(said, code="not_accepted", retryable=True, detail=_beginning(response), after=after)


def _beginning(response: httpx2.Response) -> str:
    """The first few kilobytes of an answer, on one line."""
    read = b""
    with contextlib.suppress(httpx2.HTTPError, WebhookError):
        for piece in response.iter_raw():
            read += piece
            if len(read) >= ANSWER_BYTES:
                break
    return shown(read[:ANSWER_BYTES].decode(errors="replace"))


def _label(url: str) -> str:
    """What a sentence calls a receiver: its host alone, as the path of such an address is often its password."""
    return f"The webhook at {'/'.join(redact(url).split('/')[:3])}"


def _too_late(label: str, seconds: float) -> WebhookError:
    return WebhookError(f"{label} did not answer within {seconds:g} s.", code="timeout", retryable=True)


def _again(said: str, code: str, cause: Exception) -> WebhookError:
    return WebhookError(said, code=code, retryable=True, detail=f"{type(cause).__name__}: {cause}")


def installation_secret(notes: Notes) -> str:
    """The secret that signs when none is configured: made once for all who have these notes."""
    fresh = f"whsec_{base64.b64encode(token_bytes(32)).decode()}\n"
    return (notes.get(SECRET_NOTE) or notes.put_once(SECRET_NOTE, fresh)).strip()
