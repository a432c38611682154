"""Sources in: fetch and probe everything a request names, and draw the plan from what was found."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from crosscut.errors import CrosscutError, FetchError, StorageError
from crosscut.guard import redact
from crosscut.media import ClipFacts, Target
from crosscut.plan import Plan, SpokenLine
from crosscut.probe import probe
from crosscut.segments import profile_sets
from crosscut.targets import choose_formats, uniform_target
from crosscut.telemetry import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from crosscut.fetch import Source
    from crosscut.media import Join
    from crosscut.request import Request
    from crosscut.workshop import Workshop

DOWNLOADS = 8
"""Sources fetched at the same time."""


@dataclass(frozen=True)
class Gathered:
    """What is known of the sources, by the source as the request names it.

    `clip_problems` and `music_problems` hold a sentence for each that cannot be used; a file may be fit for one use
    and not for the other.
    """

    names: Mapping[str, str]
    sources: Mapping[str, Source]
    facts: Mapping[str, ClipFacts]
    clip_problems: Mapping[str, str]
    music_problems: Mapping[str, str]

    @property
    def notes(self) -> list[str]:
        """What the user should know of how sources were had."""
        return [source.note for source in self.sources.values() if source.note]

    @property
    def sizes(self) -> dict[str, int]:
        return {name: source.size for name, source in self.sources.items()}


def shown(source: str) -> str:
    """A source as it may stand in sentences, logs and manifests: as given, but without a URL's secrets."""
    if "://" not in source:
        return source
    return CREDENTIALS.sub("", re.split(r"[?#]", source, maxsplit=1)[0])


def name_sources(request: Request) -> dict[str, str]:
    """What to call each source: as `shown`, with its place in the request where two would be called alike."""
    places = {
        clip: f"video_blocks.{block.name}[{number}]"
        for block in reversed(request.blocks)
        for number, clip in reversed(list(enumerate(block.clips)))
    }
    places |= {track: places.get(track, f"audio_blocks[{number}]") for number, track in enumerate(request.music)}
    alike = Counter(shown(source) for source in places)
    return {
        source: shown(source) if alike[shown(source)] == 1 else f"{shown(source)} ({place})"
        for source, place in places.items()
    }


def sentence(source: str, name: str, error: CrosscutError) -> str:
    """The error's sentence, calling the source by its `name`, once."""
    if isinstance(error, FetchError):
        return error.public.replace(redact(source), name)
    return error.public if isinstance(error, StorageError) else f"{name}: {error.public}"


def gather(request: Request, base: Path | None, workshop: Workshop) -> Gathered:
    """Fetch and probe every distinct source; relative paths start at `base` (None: only URLs are allowed)."""
    names = name_sources(request)
    clips = list(dict.fromkeys(clip for block in request.blocks for clip in block.clips))
    wanted = list(dict.fromkeys([*clips, *request.music]))
    telemetry = workshop.telemetry
    telemetry.expect("fetch", len(wanted))
    telemetry.expect("probe", len(wanted))
    processors = BoundedSemaphore(workshop.workers)

    def one(source: str) -> tuple[Source, ClipFacts] | str:
        try:
            with telemetry.piece("fetch"), telemetry.timed("fetch", source=names[source]):
                fetched = workshop.fetcher.fetch(source, base=base, cancelled=workshop.cancelled)
            with telemetry.piece("probe"), processors, telemetry.timed("probe", source=names[source]):
                return fetched, probe(fetched, workshop.lease, workshop.sandbox)
        except CrosscutError as error:
            telemetry.failed(error, source=names[source])
            return sentence(source, names[source], error)

    with workshop.pool(DOWNLOADS, "fetch") as pool:
        answers = dict(zip(wanted, pool.map(one, wanted), strict=True))
    found = {name: answer for name, answer in answers.items() if not isinstance(answer, str)}
    broken = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
    facts = {name: facts for name, (_, facts) in found.items()}
    return Gathered(
        names=names,
        sources={name: source for name, (source, _) in found.items()},
        facts=facts,
        clip_problems=_problems(clips, names, broken, facts, lambda known: known.video, "has sound but no pictures"),
        music_problems=_problems(request.music, names, broken, facts, lambda known: known.audio, "has no sound"),
    )


def _problems(
    sources: Iterable[str],
    names: Mapping[str, str],
    broken: Mapping[str, str],
    facts: Mapping[str, ClipFacts],
    part: Callable[[ClipFacts], object],
    lack: str,
) -> dict[str, str]:
    missing = {source: f"{names[source]} {lack}: use another file" for source in facts if part(facts[source]) is None}
    return {source: reason for source in sources if (reason := broken.get(source) or missing.get(source))}


def draw_plan(request: Request, gathered: Gathered, lines: tuple[SpokenLine | str, ...], workshop: Workshop) -> Plan:
    """Choose the formats and what fits them as it came; asks the encoder for nothing but its parameter sets."""
    clips = [
        gathered.facts[name]
        for name in dict.fromkeys(clip for block in request.blocks for clip in block.clips)
        if name not in gathered.clip_problems
    ]
    videos = [clip.video for clip in clips if clip.video is not None]

    def chosen(join: Join) -> tuple[tuple[Target, ...], str]:
        uniform = uniform_target(clips, join, request.fit)
        choice = choose_formats(videos, request.formats, request.fps, uniform)
        # Clips that fit each other keep their own encoder's parameter sets; otherwise ours rule.
        targets = [
            uniform
            if uniform and uniform.format == frame
            else Target(frame, profile_sets(frame, workshop), request.fit)
            for frame in choice.formats
        ]
        return tuple(targets), choice.reason

    targets, reason = chosen(request.join)
    return Plan(
        request=request,
        targets=targets,
        reason=reason,
        facts=gathered.facts,
        clip_problems=gathered.clip_problems,
        music_problems=gathered.music_problems,
        lines=lines,
        wide_targets=targets if request.join == "wide" else chosen("wide")[0],
    )
