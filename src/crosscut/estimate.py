"""A plan's price, in the words of the plan command: encodes, characters, minutes, bytes, short variations. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction
from math import gcd, prod
from typing import TYPE_CHECKING, Any

from crosscut import drawing
from crosscut.media import Seconds, differences, rate_text
from crosscut.plan import LISTED, Plan, SpokenLine
from crosscut.timeline import fitted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crosscut.grid import Stage

BITS_PER_PIXEL = Fraction(1, 16)
"""What our encoder setting needs for filmed pictures, measured on phone footage; drawings need less."""

AUDIO_BYTES_PER_SECOND = 20_000
SHOWN = 100
"""Numbers of short variations that are named one by one."""


def estimate(plan: Plan, sizes: Mapping[str, int], shown: Callable[[str], str]) -> dict[str, Any]:
    """Everything the plan command reports, as JSON.

    `sizes` are the bytes of the sources that could be fetched; `shown` takes the secrets out of a source's link.
    """
    clips = [
        _clip(plan, source, number) | {"source": shown(source)}
        for number in range(len(plan.targets))
        for source in plan.sources
    ]
    encodes = [clip for clip in clips if clip["reasons"]]
    price = {
        "clips_to_encode": len(encodes),
        "encode_seconds": _rounded(sum((clip["seconds"] for clip in encodes), 0.0)),
        "captions_to_draw": None,
    }
    if plan.draws_captions:
        price = drawing.price(plan)
    totals = _totals(plan)
    refusal = plan.overflow_refusal()
    spoken = set(plan.request.lines)
    return {
        "task_name": plan.request.task_name,
        "variations": len(plan),
        "combinations": plan.request.combinations,
        "formats": [
            {"name": name, "width": t.format.width, "height": t.format.height, "fps": rate_text(t.format.fps)}
            for name, t in zip(plan.format_names, plan.targets, strict=True)
        ],
        "formats_reason": plan.reason,
        "distinct_clips": len(plan.sources),
        "clips": clips,
        "joinable_as_they_came": sum(clip["joinable"] for clip in clips),
        **price,
        "wide_would_save": 0 if plan.draws_captions else len(encodes) - _wide_encodes(plan),
        "voice_over_lines": len(spoken),
        "voice_over_characters": sum(len(line.text) for line in spoken),
        "total_minutes": _rounded(float(totals["seconds"]) / 60),
        "total_bytes": _bytes(plan, sizes, totals["seconds"]),
        "shorter_than_voice_over": totals["short"],
        "cannot_be_made": totals["broken"],
        "refused": refusal.public if refusal else None,
        "unusable_sources": [
            {"source": shown(source), "reason": reason}
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
        "format": plan.format_names[number],
        "joinable": rendition is not None and not rendition.reasons,
        "reasons": list(rendition.reasons) if rendition else [],
        "seconds": _rounded(float(rendition.frames / fps)) if rendition else 0.0,
        "error": plan.clip_problems.get(source),
    }


def _wide_encodes(plan: Plan) -> int:
    return sum(
        bool(differences(plan.facts[source], target, "wide"))
        for target in plan.wide_targets
        for source in plan.sources
        if source not in plan.clip_problems
    )


def _totals(plan: Plan) -> dict[str, Any]:
    if len(plan) <= LISTED:
        return _listed(plan, range(1, len(plan) + 1))
    return _sampled(plan) if plan.request.bindings else _counted(plan)


def _listed(plan: Plan, indexes: Sequence[int]) -> dict[str, Any]:
    """Small jobs: every variation is looked at."""
    seconds, broken, short = Fraction(0), 0, []
    for variation in map(plan.variation, indexes):
        if variation.problem:
            broken += 1
            continue
        seconds += plan.length(variation)
        if variation.overflow:
            short.append(variation.index)
    return {"seconds": seconds, "broken": broken, "short": _short(plan, len(short), short[:SHOWN], exact=True)}


def _sampled(plan: Plan) -> dict[str, Any]:
    """Large jobs with lines that belong to blocks or clips: some variations are looked at, and stand for the others.

    Where a line finds room depends on all clips of a variation together.
    """
    total = len(plan)
    # Steps of the golden section that share no factor with the total go evenly through every block's clips.
    step = next(each for each in itertools.count(total * 987 // 1597) if gcd(each, total) == 1)
    found = _listed(plan, [number * step % total + 1 for number in range(LISTED)])
    times = Fraction(total, LISTED)
    return {
        "seconds": found["seconds"] * times,
        "broken": round(found["broken"] * times),
        "short": _short(plan, round(found["short"]["count"] * times), [], exact=False),
    }


def _counted(plan: Plan) -> dict[str, Any]:
    """Large jobs: lengths are counted block by block; who draws which music and line is taken as evenly spread."""
    seconds, good, short = Fraction(0), Fraction(0), Fraction(0)
    for stage, box in enumerate(plan.grid.stages):
        tracks = plan.request.music[slice(*box.music)]
        usable = sum(source not in plan.music_problems for source in tracks)
        share = box.combinations * (Fraction(usable, len(tracks)) if tracks else Fraction(1))
        for number, target in enumerate(plan.targets):
            for length, part in _lengths(plan, stage, box, number).items():
                picture = Seconds(length / target.format.fps)
                spoken, overflowing, held = _expected_voice(plan, stage, picture, target.format.fps)
                good += part * share * spoken
                short += part * share * overflowing
                seconds += part * share * (picture * spoken + held)
    return {
        "seconds": seconds,
        "broken": len(plan) - round(good),
        "short": _short(plan, round(short), [], exact=not short),
    }


def _lengths(plan: Plan, stage: int, box: Stage, number: int) -> dict[int, Fraction]:
    """Frames of picture in a format -> the share of the box's combinations that have so many, of those that can be."""
    counts: Counter[int] = Counter({0: 1})
    for block in range(len(plan.request.blocks)):
        frames = Counter(slot.length for slot in plan.slots_in(stage, block, number))
        grown: Counter[int] = Counter()
        for length, count in counts.items():
            for more, times in frames.items():
                grown[length + more] += count * times
        counts = grown
    whole = prod(box.sizes)
    return {length: Fraction(count, whole) for length, count in counts.items()}


def _expected_voice(plan: Plan, stage: int, picture: Seconds, fps: Fraction) -> tuple[Fraction, Fraction, Fraction]:
    """Of variations with that picture: the shares whose line can be spoken and is too long; mean seconds of hold."""
    drawn = [plan.lines[number] for number in plan.drawable(stage, picture)]
    if not drawn:
        return Fraction(1), Fraction(0), Fraction(0)
    spoken = [line for line in drawn if isinstance(line, SpokenLine)]
    handled = [fitted(line.seconds, picture - plan.unspoken, fps, faster=plan.faster) for line in spoken]
    holds = sum(hold for hold, _, _ in handled)
    overflowing = sum(overflow is not None for _, _, overflow in handled)
    return Fraction(len(spoken), len(drawn)), Fraction(overflowing, len(drawn)), holds / fps / len(drawn)


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
    heard = plan.request.music or plan.request.lines or plan.request.clip_sound == "keep"
    audio = AUDIO_BYTES_PER_SECOND if heard else 0
    return round((video + audio) * seconds)


def _rounded(value: float) -> float:
    return round(value, 2)
