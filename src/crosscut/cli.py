"""The command line: render, plan and doctor; the other commands are in `commands`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from pathlib import Path  # noqa: TC003  cyclopts reads it
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from cyclopts import App, CycloptsError, Parameter

from crosscut import __version__
from crosscut.bootstrap import open_places, open_workshop, sharing_of
from crosscut.commands.auth import auth
from crosscut.commands.jobs import cancel, jobs, submit, watch
from crosscut.commands.keys import keys
from crosscut.commands.serve import health, serve, worker
from crosscut.commands.shared import (
    ALL_MADE,
    BROKEN,
    INTERRUPTED,
    REFUSED,
    SOME_FAILED,
    RequestFile,
    dump,
    load_settings,
    read_body,
)
from crosscut.doctor import examine
from crosscut.errors import CrosscutError, RequestError
from crosscut.fields import RequestLimits
from crosscut.pipeline import preview
from crosscut.places import whole
from crosscut.rendering import render as make
from crosscut.request import parse_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crosscut.request import Request
    from crosscut.settings import Settings
    from crosscut.telemetry import Watcher

SOON_SECONDS = 0.05

app = App(
    name="crosscut",
    version=__version__,
    default_parameter=Parameter(negative="", show_default=False),
    suppress_keyboard_interrupt=False,
    help="Every combination of your video clips, with music and a spoken voice-over, spliced instead of rendered.",
)


for command in (serve, worker, health, submit, jobs, watch, cancel, keys, auth):
    app.command(command)


@app.command
def render(
    request: RequestFile,
    /,
    *,
    to: Annotated[
        str,
        Parameter(
            help="Where the task's folder is made: a folder, gs://…, s3://… or az://…; default: what the request says,"
            " else CROSSCUT_DESTINATION."
        ),
    ] = "",
    as_json: Annotated[bool, Parameter(name="--json", help="Print the report as one JSON object.")] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], help="No progress and no log lines.")] = False,
) -> int:
    """Make every variation of REQUEST in DIR/<task_name>/, with a manifest.

    Exit status: 0 all made, 1 some failed, 2 the request was refused.
    """
    settings = load_settings()
    body, base = read_body(request)
    with _watched(settings, quiet=quiet) as watched:
        report = make(body, base, to, settings, *watched)
    _print(report, as_json=as_json, quiet=quiet)
    return SOME_FAILED if report["failed"] or report["manifest_problem"] else ALL_MADE


@app.command
def plan(
    request: RequestFile,
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json", help="Print the plan as one JSON object.")] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], help="No progress and no log lines.")] = False,
) -> int:
    """Tell what REQUEST would make and what it would cost, without encoding or buying anything.

    Exit status: 0 all can be made, 1 some cannot, 2 the request was refused.
    """
    settings = load_settings()
    parsed, base = _read(request, settings)
    with _watched(settings, quiet=quiet) as watched, open_workshop(settings, *watched) as workshop:
        estimate = preview(parsed, base, workshop)
    if as_json:
        dump(estimate)
    else:
        from crosscut.terminal import show_plan  # noqa: PLC0415 - rich is slow to import and not needed for JSON

        show_plan(estimate)
    if estimate["refused"]:
        raise RequestError(estimate["refused"], code="voice_too_long")
    return SOME_FAILED if estimate["cannot_be_made"] else ALL_MADE


@app.command
def doctor(
    *,
    as_json: Annotated[bool, Parameter(name="--json", help="Print the findings as JSON.")] = False,
) -> int:
    """Tell what this machine has and lacks. Exit status 1 if something needed is missing."""
    settings = load_settings()
    with open_workshop(settings) as workshop, open_places(settings) as places:
        findings = examine(settings, workshop, places(whole(settings.destination)), sharing_of(settings))
    if as_json:
        dump({"findings": [finding.as_json() for finding in findings]})
    else:
        marks = {True: "ok  ", None: "note", False: "LACK"}
        for finding in findings:
            print(f"{marks[finding.good]}  {finding.name:<10} {finding.words}")  # noqa: T201
    return SOME_FAILED if any(finding.good is False for finding in findings) else ALL_MADE


def _read(name: str, settings: Settings) -> tuple[Request, Path]:
    """The request and the folder its relative paths start from."""
    body, base = read_body(name)
    return parse_request(body, local=True, limits=RequestLimits(variations=settings.max_variations)), base


@contextlib.contextmanager
def _watched(settings: Settings, *, quiet: bool) -> Iterator[tuple[Watcher | None, list[TextIO]]]:
    """Who sees progress, and where events go: bars on a terminal, log lines otherwise, and the log file if any."""
    with contextlib.ExitStack() as stack:
        logs: list[TextIO] = []
        if settings.log_file:
            logs.append(stack.enter_context(_log_file(settings.log_file)))
        if quiet:
            yield None, logs
        elif sys.stderr.isatty():
            from crosscut.terminal import ProgressBars  # noqa: PLC0415 - see above

            yield stack.enter_context(ProgressBars()), logs
        else:
            yield None, [*logs, sys.stderr]


def _log_file(path: Path) -> TextIO:
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise RequestError(f"cannot write CROSSCUT_LOG_FILE {path}: {reason}", code="invalid_setting") from error


def _print(report: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        dump(report)
    elif not quiet:
        from crosscut.terminal import show_report  # noqa: PLC0415 - see above

        show_report(report)


def run(arguments: list[str] | None = None) -> int:
    """Run one command; its exit status. Errors become one sentence on standard error."""
    try:
        status = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CrosscutError as error:
        sys.stderr.write(f"crosscut: {error.public}\n")
        return REFUSED
    except CycloptsError as error:
        sys.stderr.write(f"crosscut: {error}\n")
        return REFUSED
    except KeyboardInterrupt:
        sys.stderr.write("crosscut: stopped; run the same command again to go on where it ended\n")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not try to flush it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ALL_MADE
    except Exception as error:  # noqa: BLE001 - a user is owed a sentence
        traceback.print_exc()
        sys.stderr.write(
            f"crosscut: this is an error in crosscut ({type(error).__name__}): report it with the lines above\n"
        )
        return BROKEN
    return status if isinstance(status, int) else ALL_MADE


def main() -> None:
    # A polite end asked for by a supervisor is treated like Ctrl-C: children are stopped, the manifest is written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.unraisablehook = _heed
    sys.exit(run())


def _heed(lost: sys.UnraisableHookArgs) -> None:
    """An interrupt that came while a finalizer ran, which can raise nothing, comes again when that is over."""
    if lost.exc_type is KeyboardInterrupt:
        # Not from here: this can raise nothing either.
        again = threading.Timer(SOON_SECONDS, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(lost)
