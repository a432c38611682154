"""The commands for jobs of a server: submit, jobs, watch, cancel."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from crosscut.client import Client, discover
from crosscut.commands.shared import (
    ALL_MADE,
    INTERRUPTED,
    REFUSED,
    SOME_FAILED,
    RequestFile,
    dump,
    load_settings,
    read_body,
)
from crosscut.fields import RequestLimits
from crosscut.request import MAX_COMBINATIONS, parse_request
from crosscut.strictjson import read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Server = Annotated[
    str, Parameter(help="Address of the server; default: CROSSCUT_SERVER, else the one that runs on this machine.")
]
Job = Annotated[str, Parameter(help="The job's id.")]
State = Literal["queued", "running", "done", "cancelled", "failed"]

SOURCES = ("video_blocks", "audio_blocks")
"""Fields of a request that hold lists of sources by name."""


def submit(
    request: RequestFile,
    /,
    *,
    server: Server = "",
    idempotency_key: Annotated[
        str | None, Parameter(help="The same request sent twice with the same key is one job.")
    ] = None,
    watch_it: Annotated[bool, Parameter(name="--watch", help="Stay and show progress, as watch does.")] = False,
    as_json: Annotated[bool, Parameter(name="--json", help="Print the answer as one JSON object.")] = False,
) -> int:
    """Hand REQUEST to a server; files of this machine are uploaded first.

    Exit status: 0 accepted, 2 refused; with --watch that of watch.
    """
    body, base = read_body(request)
    with _client(server) as client:
        answer = client.submit(with_uploads(body, base, lambda path: _uploaded(client, path)), idempotency_key)
        if as_json:
            dump(answer)
        else:
            print(f"{answer['id']}: {answer.get('variations', 0):,} variations")  # noqa: T201
        return _follow(client, answer["id"], as_json=as_json) if watch_it else ALL_MADE


def jobs(
    *,
    state: Annotated[State | None, Parameter(help="Only jobs in this state.")] = None,
    server: Server = "",
    as_json: Annotated[bool, Parameter(name="--json", help="Print each job as one JSON object a line.")] = False,
) -> int:
    """List the jobs of a server, the newest first."""
    with _client(server) as client:
        found = client.jobs(state)
        if as_json:
            for each in found:
                dump(each)
        else:
            from crosscut.terminal import show_jobs  # noqa: PLC0415 - rich is slow to import and not needed for JSON

            show_jobs(found)
    return ALL_MADE


def watch(
    job: Job,
    /,
    *,
    server: Server = "",
    as_json: Annotated[bool, Parameter(name="--json", help="Print each change as one JSON object a line.")] = False,
) -> int:
    """Show how JOB gets on until it has ended: bars on a terminal, JSON lines otherwise.

    Exit status: 0 all made, 1 some failed, 2 the job failed or was cancelled.
    """
    with _client(server) as client:
        return _follow(client, job, as_json=as_json)


def cancel(
    job: Job,
    /,
    *,
    server: Server = "",
    as_json: Annotated[bool, Parameter(name="--json", help="Print the job's status as one JSON object.")] = False,
) -> int:
    """Stop JOB; what it has made stays."""
    with _client(server) as client:
        status = client.cancel(job)
    if as_json:
        dump(status)
    else:
        print(f"{status['id']}: {status['state']}, {status['succeeded']:,} of {status['total']:,} made")  # noqa: T201
    return ALL_MADE


def with_uploads(body: bytes, base: Path, upload: Callable[[Path], str]) -> bytes:
    """The request with an uploaded source in place of every path; as it came where it has none.

    A request with paths is checked first, so that nothing is sent for one that would be refused. Raises RequestError.
    """
    limits = RequestLimits(variations=MAX_COMBINATIONS * 8)
    document = read_json(body, most_bytes=limits.body, most_levels=limits.depth)
    places = list(_source_places(document))
    paths = dict.fromkeys(where[key] for where, key in places if _is_path(where[key]))
    if not paths:
        return body
    parse_request(body, local=True, limits=limits)
    uploaded = {path: upload(base / path.strip(" ")) for path in paths}
    for where, key in (*places, *_named_clips(document)):
        where[key] = uploaded.get(where[key], where[key])
    return json.dumps(document).encode()


def _source_places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or object that holds a source, with its position or name there."""
    fields = [document.get(name) for name in SOURCES] if isinstance(document, dict) else []
    for sources in (each for block in fields if isinstance(block, dict) for each in block.values()):
        for number, source in enumerate(sources if isinstance(sources, list) else ()):
            if isinstance(source, str):
                yield sources, number
            elif isinstance(source, dict) and isinstance(source.get("url"), str):
                yield source, "url"


def _named_clips(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every line that may name its clip by its source."""
    lines = [each for field in ("text_to_speach", "text_to_speech") for each in document.get(field) or ()]
    lines += [each for block in (document.get("voice_blocks") or {}).values() for each in block]
    return ((line, "clip") for line in lines if isinstance(line.get("clip"), str))


def _is_path(source: object) -> bool:
    """Whether it is neither a link nor an uploaded source; a drive of Windows is one letter."""
    return isinstance(source, str) and bool(source.strip(" ")) and not re.match(r" *[A-Za-z][A-Za-z0-9+.\-]+:", source)


def _uploaded(client: Client, path: Path) -> str:
    taken = client.upload(path)
    sys.stderr.write(f"crosscut: uploaded {path.name} as {taken['id']}\n")
    return str(taken["id"])


def _client(server: str) -> Client:
    settings = load_settings()
    key = settings.api_key.get_secret_value() if settings.api_key else None
    address = discover(server or settings.server, key, settings.data_dir)
    return Client(address.url, address.token, waiting=_waiting)


def _waiting(seconds: float) -> None:
    sys.stderr.write(f"crosscut: the server has too much to do; going on in {seconds:.0f} s\n")


def _follow(client: Client, job: str, *, as_json: bool) -> int:
    """Show a job until it has ended; the exit status that tells how."""
    try:
        status = _shown(client, job, as_json=as_json)
    except KeyboardInterrupt:
        sys.stderr.write(f"crosscut: the job goes on; crosscut watch {job} shows it again\n")
        return INTERRUPTED
    if status["state"] != "done":
        return REFUSED
    return SOME_FAILED if status["failed"] or status.get("manifest_problem") else ALL_MADE


def _shown(client: Client, job: str, *, as_json: bool) -> dict[str, Any]:
    status: dict[str, Any] = {}
    if as_json or not sys.stdout.isatty():
        for status in client.watch(job):
            dump(status)
        return status
    from crosscut.terminal import ProgressBars, show_job  # noqa: PLC0415 - see above

    with ProgressBars() as bars:
        for status in client.watch(job):
            for name, stage in status["stages"].items():
                bars.stage(name, stage["done"], stage["total"])
            bars.flow(status.get("bytes", 0), status.get("bytes_per_second"))
    show_job(status)
    return status
