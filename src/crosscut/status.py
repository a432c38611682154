"""A job's row as what its owner is told. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

REASONS_SHOWN = 20

NOT_JOINED = (
    "the bucket joins no objects with these credentials, so videos were sent whole: let them create, list, read and"
    " delete objects there, or set CROSSCUT_ASSEMBLE=off"
)


def summary(row: Any, now: float) -> dict[str, Any]:
    """What a list of jobs shows; `now` in seconds of the epoch."""
    ended = row.ok + row.failed + row.doomed
    meters, spent = json.loads(row.meters), json.loads(row.spent)
    rate = _rate(row, now)
    left = max(0, row.total - ended)
    over = row.state in ("done", "failed", "cancelled")
    return {
        "id": row.id,
        "task_name": row.task_name,
        "mode": row.mode,
        "state": row.state,
        "created_at": iso(row.created),
        "started_at": iso(row.started),
        "ended_at": iso(row.ended),
        "destination": row.destination,
        "folder": row.folder,
        "location": row.location,
        "total": row.total,
        "succeeded": row.ok,
        "made": row.ok - row.kept,
        "kept": row.kept,
        "failed": row.failed + row.doomed,
        "percent": round(100 * ended / row.total, 2) if row.total else 100.0,
        "rate": None if rate is None else round(rate, 3),
        "eta_seconds": None if over or not rate else round(left / rate, 1),
        "seconds": round((row.ended or now) - row.created, 3),
        "seconds_by_stage": {stage: round(seconds, 3) for stage, (_, seconds) in sorted(spent.items())},
        "bytes": int(meters.get("bytes_out", 0)),
        "bytes_sent": int(meters.get("bytes_sent", 0)),
        "joined_in_bucket": int(meters.get("joined", 0)),
        "bytes_per_second": None if rate is None else _flow(row, rate, meters),
        "retries": int(meters.get("retries", 0)),
        "voice_over_characters": int(meters.get("characters", 0)),
        "voice_over_characters_billed": int(meters.get("characters_billed", 0)),
        "cache_hits": int(meters.get("cache_hits", 0)),
        "cache_misses": int(meters.get("cache_misses", 0)),
        "cost": {"currency": "USD", "voice_over": round(meters.get("cost", 0.0), 4)},
        "loudness": json.loads(row.loudness) if row.loudness else None,
        "errors": _errors(row),
        "manifest_problem": row.manifest_problem,
        "passthrough": row.passthrough,
        "version": row.version,
    }


def delivery_notes(meters: Mapping[str, float]) -> list[str]:
    """What is to be said of how the videos were delivered."""
    return [NOT_JOINED] if meters.get("join_refusals") else []


def _rate(row: Any, now: float) -> float | None:
    """Variations a second since the first came out."""
    if row.making is None:
        return None
    seconds = (row.ended or now) - row.making
    made: int = row.ok - row.kept - row.made_before
    return made / seconds if seconds > 0 else None


def _flow(row: Any, rate: float, meters: Mapping[str, float]) -> int:
    made = row.ok - row.kept
    return round(rate * meters.get("bytes_out", 0.0) / made) if made else 0


def _errors(row: Any) -> list[dict[str, Any]]:
    told = json.loads(row.errors)
    counts: dict[str, int] = {}
    for reasons in told.values():
        for reason, count in reasons.items():
            counts[reason] = counts.get(reason, 0) + count
    ranked = sorted(counts.items(), key=lambda one: -one[1])
    return [{"reason": reason, "variations": count} for reason, count in ranked[:REASONS_SHOWN]]


def iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
