"""A plan's price, in the words of the plan command: encodes, characters, minutes, bytes, short variations. Pure."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from crosscut.media import Seconds, differences, rate_text
from crosscut.plan import FADE, LISTED, Plan, SpokenLine

if TYPE_CHECKING:
    from collections.abc import Mapping

BITS_PER_PIXEL = Fraction(1, 16)
"""What our encoder setting needs for filmed pictures, measured on phone footage; drawings need less."""

AUDIO_BYTES_PER_SECOND = 20_000
SHOWN = 100
"""Numbers of short variations that are named one by one."""


def estimate(plan: Plan, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Everything the plan command reports, as JSON. `sizes` are the bytes of the sources that could be fetched."""
    clips = [_clip(plan, source, number) for number in range(len(plan.targets)) for source in plan.sources]
    encodes = [clip for clip in clips if clip["reasons"]]
    totals = _listed(plan) if len(plan) <= LISTED else _counted(plan)
    spoken = {(line.text, line.voice) for line in plan.request.lines}
    return {
        "task_name": plan.request.task_name,
        "variations": len(plan),
        "combinations": len(plan.combinations),
        "formats": [
            {"name": name, "width": t.format.width, "height": t.format.height, "fps": rate_text(t.format.fps)}
            for name, t in zip(plan.format_names, plan.targets, strict=True)
        ],
        "formats_reason": plan.reason,
        "distinct_clips": len(plan.sources),
        "clips": clips,
        "joinable_as_they_came": sum(clip["joinable"] for clip in clips),
        "clips_to_encode": len(encodes),
        "encode_seconds": _rounded(sum((clip["seconds"] for clip in encodes), 0.0)),
        "wide_would_save": sum(
            _wide_saves(plan, source, n) for n in range(len(plan.targets)) for source in plan.sources
        )
        if plan.request.join == "safe"
        else 0,
        "voice_over_lines": len(spoken),
        "voice_over_characters": sum(len(text) for text, _ in spoken),
        "total_minutes": _rounded(float(totals["seconds"]) / 60),
        "total_bytes": _bytes(plan, sizes, totals["seconds"]),
        "shorter_than_voice_over": totals["short"],
        "cannot_be_made": totals["broken"],
        "unusable_sources": [
            {"source": source, "reason": reason}
            for source, reason in {**plan.clip_problems, **plan.music_problems}.items()
        ]
        + [
            {"source": f"voice-over line {number + 1}", "reason": line}
            for number, line in enumerate(plan.lines)
            if isinstance(line, str)
        ],
    }


def _clip(plan: Plan, source: str, number: int) -> dict[str, Any]:
    rendition = plan.renditions.get((source, number))
    fps = plan.targets[number].format.fps
    return {
        "source": source,
        "format": plan.format_names[number],
        "joinable": rendition is not None and not rendition.reasons,
        "reasons": list(rendition.reasons) if rendition else [],
        "seconds": _rounded(float(rendition.frames / fps)) if rendition else 0.0,
        "error": plan.clip_problems.get(source),
    }


def _wide_saves(plan: Plan, source: str, number: int) -> bool:
    rendition = plan.renditions.get((source, number))
    return bool(rendition and rendition.reasons) and not differences(plan.facts[source], plan.targets[number], "wide")


def _listed(plan: Plan) -> dict[str, Any]:
    """Small jobs: every variation is looked at."""
    seconds, broken, short = Fraction(0), 0, []
    for variation in plan:
        if variation.problem:
            broken += 1
            continue
        seconds += plan.length(variation)
        if variation.overflow:
            short.append(variation.index)
    return {"seconds": seconds, "broken": broken, "short": _short(plan, len(short), short[:SHOWN], exact=True)}


def _counted(plan: Plan) -> dict[str, Any]:
    """Large jobs: lengths are counted block by block; who draws which line is taken as evenly spread."""
    share = Fraction(len(plan), len(plan.targets))
    seconds, good, short = Fraction(0), Fraction(0), Fraction(0)
    for number, target in enumerate(plan.targets):
        lengths: Counter[int] = Counter({0: 1})
        whole = 1
        for block in plan.request.blocks:
            whole *= len(block.clips)
            frames = [plan.renditions[c, number].frames for c in block.clips if (c, number) in plan.renditions]
            grown: Counter[int] = Counter()
            for length, count in lengths.items():
                for more in frames:
                    grown[length + more] += count
            lengths = grown
        for length, count in lengths.items():
            part = Fraction(count, whole) * share
            picture = Seconds(length / target.format.fps)
            good += part
            share_short, held = _expected_overflow(plan, picture)
            short += part * share_short
            seconds += part * (picture + held)
    count = round(short)
    return {
        "seconds": seconds,
        "broken": len(plan) - round(good),
        "short": _short(plan, count, [], exact=count == 0),
    }


def _expected_overflow(plan: Plan, picture: Seconds) -> tuple[Fraction, Fraction]:
    """For a picture of that length: the share that draws a longer voice-over, and the mean seconds it is held."""
    lines = [line for line in plan.lines if isinstance(line, SpokenLine)]
    lacks = [line.seconds + FADE - picture for line in lines if line.seconds + FADE > picture]
    if not lacks or (plan.request.voice_overflow == "choose" and len(lacks) < len(lines)):
        return Fraction(0), Fraction(0)
    return Fraction(len(lacks), len(lines)), sum(lacks, Fraction(0)) / len(lines)


def _short(plan: Plan, count: int, indexes: list[int], *, exact: bool) -> dict[str, Any]:
    spoken = all(line.exact for line in plan.lines if isinstance(line, SpokenLine))
    return {
        "count": count,
        "exact": exact and spoken,
        "variations": indexes,
        "handling": plan.request.voice_overflow,
    }


def _bytes(plan: Plan, sizes: Mapping[str, int], seconds: Fraction) -> int:
    """About: copied clips at their files' own rate, encoded ones at the usual one."""
    rates = []
    for (source, number), rendition in plan.renditions.items():
        frame = plan.targets[number].format
        if rendition.reasons:
            rates.append(frame.width * frame.height * frame.fps * BITS_PER_PIXEL / 8)
        else:
            rates.append(sizes.get(source, 0) / (rendition.frames / frame.fps))
    video = sum(rates, Fraction(0)) / len(rates) if rates else Fraction(0)
    audio = AUDIO_BYTES_PER_SECOND if plan.request.music or plan.request.lines else 0
    return round((video + audio) * seconds)


def _rounded(value: float) -> float:
    return round(value, 2)
