"""What a person at a terminal sees: progress bars, the plan and lists as tables, the report in a few lines."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Self

STAGES = {
    "fetch": "fetching sources",
    "probe": "reading clips",
    "speak": "speaking",
    "conform": "conforming clips",
    "deliver": "writing videos",
}
SHOWN_REASONS = 10
PIPE_WIDTH = 200


class _Rate(ProgressColumn):
    """Variations a second, bytes and bytes a second, for the stage in which that is meant."""

    def render(self, task: Task) -> Text:
        if task.fields.get("stage") != "deliver" or not task.speed:
            return Text("")
        written, flow = task.fields.get("written"), task.fields.get("flow")
        bytes_ = f" {written / 1e6:,.0f} MB" if written else ""
        flowing = f" {flow / 1e6:,.1f} MB/s" if flow else ""
        return Text(f"{task.speed:.1f}/s{bytes_}{flowing}", style="progress.data.speed")


class ProgressBars:
    """A `Watcher` that draws one bar for each stage on standard error."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, name: str, done: float, total: int | None) -> None:
        if not total:
            return
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(STAGES.get(name, name), total=total, stage=name)
        self._progress.update(self._tasks[name], completed=done, total=total)

    def flow(self, written: int, per_second: float | None) -> None:
        with self._lock:
            task = self._tasks.get("deliver")
        if task is not None:
            self._progress.update(task, written=written, flow=per_second)


def _console() -> Console:
    # In a pipe there is no width to fold at.
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def show_report(report: dict[str, Any]) -> None:
    console = _console()
    for note in report["notes"]:
        console.print(f"note: {note}", markup=False)
    for failure in report["failures"][:SHOWN_REASONS]:
        console.print(f"failed ×{failure['variations']}: {failure['reason']}", markup=False, style="red")
    made = f"{report['made']} made" + (f", {report['kept']} kept from before" if report["kept"] else "")
    console.print(f"{report['total']} variations: {made}, {report['failed']} failed, in {report['seconds']:.1f} s")
    console.print(
        f"cost: {report['clips_encoded']} clips encoded, {report['clips_copied']} copied as they came;"
        f" {report['voice_over_characters']} characters spoken, ${report['cost']['voice_over']:.2f}"
    )
    if report.get("bytes"):
        console.print(_written(report))
    if levels := report["loudness"]:
        before, after = (_span(levels[when]) for when in ("before", "after"))
        console.print(f"loudness: {after} LUFS, {before} as the sounds came; peaks up to {levels['true_peak']} dBTP")
    if report["manifest_problem"]:
        console.print(f"no manifest: {report['manifest_problem']}", markup=False, style="red")
    if report["folder"].startswith("https://"):
        console.print(f"videos and manifest: {report['folder']}", markup=False, soft_wrap=True)
        return
    console.print(f"videos: {report['folder']}", markup=False, soft_wrap=True)
    console.print(f"manifest: {report['folder']}/manifest.json", markup=False, soft_wrap=True)


def _written(report: Mapping[str, Any]) -> str:
    told = f"written: {report['bytes'] / 1e6:,.1f} MB"
    if flow := report.get("bytes_per_second"):
        told += f", {flow / 1e6:,.1f} MB/s"
    if joined := report.get("joined_in_bucket"):
        told += f"; {report['bytes_sent'] / 1e6:,.1f} MB sent, {joined:,} joined in the bucket"
    if retries := report.get("retries"):
        told += f"; {retries:,} tries more than needed"
    return told


def _span(levels: list[float] | None) -> str:
    if levels is None:
        return "silent"
    low, high = (f"{level:.1f}" for level in levels)
    return low if low == high else f"{low} to {high}"


def show_plan(plan: dict[str, Any]) -> None:
    console = _console()
    formats = ", ".join(f"{f['width']}×{f['height']} at {f['fps']} fps" for f in plan["formats"])
    console.print(
        f"{plan['variations']:,} variations of {plan['distinct_clips']} clips ({plan['combinations']:,} combinations)"
    )
    console.print(f"format: {formats} ({plan['formats_reason']})", markup=False)
    table = Table("clip", "format", "seconds", "", box=None, pad_edge=False)
    for clip in plan["clips"]:
        state = clip["error"] or ("copied" if clip["joinable"] else "encoded: " + "; ".join(clip["reasons"]))
        table.add_row(Text(clip["source"], overflow="fold"), clip["format"], f"{clip['seconds']:.2f}", Text(state))
    console.print(table)
    console.print(
        f"to encode: {plan['clips_to_encode']} clips, {plan['encode_seconds']:.1f} s of video;"
        f" copied as they came: {plan['joinable_as_they_came']}"
    )
    if drawn := plan["captions_to_draw"]:
        most = "" if drawn["exact"] else "at most "
        console.print(f"captions are drawn into {most}{drawn['encodes']:,} of these clips, for what is said meanwhile")
    if plan["wide_would_save"]:
        console.print(f'join "wide" would save {plan["wide_would_save"]} encodes')
    console.print(f"voice-over: {plan['voice_over_lines']} lines, {plan['voice_over_characters']} characters")
    short = plan["shorter_than_voice_over"]
    if short["count"]:
        about = "" if short["exact"] else "about "
        named = ", ".join(str(index) for index in short["variations"][:SHOWN_REASONS])
        more = ", …" if short["count"] > SHOWN_REASONS else ""
        which = f" ({named}{more})" if named else ""
        console.print(
            f"shorter than their voice-over: {about}{short['count']}{which}, handled by “{short['handling']}”"
        )
    console.print(f"result: {plan['total_minutes']:.1f} minutes, about {plan['total_bytes'] / 1e6:,.0f} MB")
    for source in plan["unusable_sources"]:
        console.print(f"cannot be used: {source['reason']}", style="red", markup=False)
    if plan["cannot_be_made"]:
        console.print(f"cannot be made: {plan['cannot_be_made']} variations", style="red")
    for note in plan["notes"]:
        console.print(f"note: {note}", markup=False)


def show_job(status: Mapping[str, Any]) -> None:
    """A job of a server that has ended."""
    if status["state"] != "done":
        _console().print(f"{status['id']}: {status['state']}", style="red")
    place = status.get("location") or f"{status['destination']}/{status['folder']}"
    show_report({**status, "failures": status["errors"], "seconds": status["seconds"] or 0.0, "folder": place})


def show_jobs(jobs: Iterable[Mapping[str, Any]]) -> None:
    table = Table("job", "task", "state", "made", "failed", "created", box=None, pad_edge=False)
    for job in jobs:
        made = f"{job['succeeded']:,}/{job['total']:,}"
        failed = Text(f"{job['failed']:,}", style="red" if job["failed"] else "")
        table.add_row(job["id"], Text(job["task_name"]), job["state"], made, failed, job["created_at"])
    _console().print(table)


def show_keys(keys: Iterable[Mapping[str, Any]]) -> None:
    table = Table("id", "owner", "name", "created", "ends", box=None, pad_edge=False)
    for key in keys:
        table.add_row(
            key["id"], Text(key["owner"]), Text(key["name"]), key.get("created_at") or "", key.get("ends_at") or ""
        )
    _console().print(table)
