"""What object stores refuse, as sentences that say what to do."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError

from crosscut.errors import CrosscutError, DeliverError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crosscut.destinations.buckets import Bucket

STATUS = re.compile(r"status code: (\d{3})")
WORD = re.compile(r"<Code>(\w+)</Code>")
"""The stores' own word for what is wrong; the rest of what they answer may quote signatures."""

NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"}
CREDENTIALS = {
    "AuthenticationFailed", "AuthenticationRequired", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken",
    "InvalidAuthenticationInfo", "NoAuthenticationInformation", "SignatureDoesNotMatch", "TokenRefreshRequired",
}  # fmt: skip
CLOCK = {"RequestTimeTooSkewed", "RequestExpired"}
REGION = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
SLOWER = {"SlowDown", "ServerBusy", "TooManyRequests", "RequestLimitExceeded", "ServiceUnavailable"}

SENTENCES = {
    "wrong_clock": ("{bucket} finds this machine's clock wrong: set it and run the same command again", True),
    "wrong_region": ("{bucket} is in another region: set CROSSCUT_S3_REGION to it", False),
    "wrong_credentials": ("{bucket} does not accept the credentials: check or renew them", False),
    "disk_full": ("{bucket} has no room left: free some or raise its quota, and run the same command again", True),
    "rate_limited": ("{bucket} asks for fewer requests: crosscut waits and goes on", True),
    "no_permission": (
        "the credentials may not write into {bucket}: let them list, create, read and delete objects there",
        False,
    ),
    "no_such_bucket": ("there is no bucket {bucket}: make it, or correct the name", False),
    "unavailable": ("{bucket} is out of order: try again later", True),
    "refused": ("{bucket} refuses what it is asked: check the settings of the bucket and of crosscut", False),
    "unreachable": ("{bucket} cannot be reached: check the network, and the endpoint if one is set", True),
}
"""By code: what a user reads, and whether trying again can help."""


@contextlib.contextmanager
def refusals(bucket: Bucket) -> Iterator[None]:
    """Turn what obstore raises into errors of ours; what a file or text raised while it was read goes through."""
    try:
        yield
    except CrosscutError:
        raise
    except (BaseError, FileNotFoundError) as error:
        # The cause is not kept: obstore's text may quote signed queries.
        raise refusal(bucket, str(error)) from None


def word_of(text: str) -> str:
    return found[1] if (found := WORD.search(text)) else ""


def is_out_of_range(error: BaseError) -> bool:
    """Whether bytes were asked for beyond an object's end."""
    found = STATUS.search(str(error))
    return found is not None and found[1] == "416"


def refusal(bucket: Bucket, text: str) -> CrosscutError:
    status = int(found[1]) if (found := STATUS.search(text)) else 0
    word = word_of(text)
    code = _code(text, status, word)
    sentence, retryable = SENTENCES[code]
    kind = StorageError if code == "disk_full" else DeliverError
    detail = f"{status or 'no answer'} {word}".strip()
    return kind(sentence.format(bucket=bucket), code=code, retryable=retryable, detail=detail)


def _code(text: str, status: int, word: str) -> str:
    rules = (
        (word in CLOCK, "wrong_clock"),
        (word in REGION or "redirect without LOCATION" in text, "wrong_region"),
        (status == 401 or word in CREDENTIALS, "wrong_credentials"),
        (400 <= status < 500 and "token request" in text, "wrong_credentials"),
        ("Quota" in word or status == 507, "disk_full"),
        (status in (429, 503) or word in SLOWER, "rate_limited"),
        (status == 403, "no_permission"),
        (word in NO_BUCKET, "no_such_bucket"),
        (status >= 500 or status in (404, 408, 409, 412), "unavailable"),
        (status > 0, "refused"),
    )
    return next((code for holds, code in rules if holds), "unreachable")
