"""Sources in: fetch and probe everything a request names, and draw the plan from what was found."""

from __future__ import annotations

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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from crosscut.fetch import Source
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

    sources: Mapping[str, Source]
    facts: Mapping[str, ClipFacts]
    clip_problems: Mapping[str, str]
    music_problems: Mapping[str, str]

    @property
    def sizes(self) -> dict[str, int]:
        return {name: source.size for name, source in self.sources.items()}


def shown(source: str) -> str:
    """A source as it may stand in sentences, logs and manifests: paths as given, URLs without their secrets."""
    return redact(source) if "://" in source else source


def sentence(source: str, error: CrosscutError) -> str:
    """The error's sentence, naming the source once and never its signed query."""
    name = shown(source)
    return error.public if isinstance(error, FetchError | StorageError) else f"{name}: {error.public}"


def gather(request: Request, base: Path | None, workshop: Workshop) -> Gathered:
    """Fetch and probe every distinct source; relative paths start at `base` (None: only URLs are allowed)."""
    clips = list(dict.fromkeys(clip for block in request.blocks for clip in block.clips))
    wanted = list(dict.fromkeys([*clips, *request.music]))
    telemetry = workshop.telemetry
    telemetry.expect("fetch", len(wanted))
    telemetry.expect("probe", len(wanted))
    processors = BoundedSemaphore(workshop.workers)

    def one(name: str) -> tuple[Source, ClipFacts] | str:
        try:
            with telemetry.timed("fetch", source=shown(name)):
                source = workshop.fetcher.fetch(name, base=base, cancelled=workshop.cancelled)
            telemetry.advance("fetch")
            with processors, telemetry.timed("probe", source=shown(name)):
                facts = probe(source, workshop.lease, workshop.sandbox)
            telemetry.advance("probe")
        except CrosscutError as error:
            telemetry.failed(error, source=shown(name))
            return sentence(name, error)
        return source, facts

    with workshop.pool(DOWNLOADS, "fetch") as pool:
        answers = dict(zip(wanted, pool.map(one, wanted), strict=True))
    found = {name: answer for name, answer in answers.items() if not isinstance(answer, str)}
    broken = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
    facts = {name: facts for name, (_, facts) in found.items()}
    return Gathered(
        sources={name: source for name, (source, _) in found.items()},
        facts=facts,
        clip_problems=_problems(clips, broken, facts, lambda known: known.video, "has sound but no pictures"),
        music_problems=_problems(request.music, broken, facts, lambda known: known.audio, "has no sound"),
    )


def _problems(
    names: Iterable[str],
    broken: Mapping[str, str],
    facts: Mapping[str, ClipFacts],
    part: Callable[[ClipFacts], object],
    lack: str,
) -> dict[str, str]:
    missing = {name: f"{shown(name)} {lack}: use another file" for name in facts if part(facts[name]) is None}
    return {name: sentence for name in names if (sentence := broken.get(name) or missing.get(name))}


def draw_plan(request: Request, gathered: Gathered, lines: tuple[SpokenLine | str, ...], workshop: Workshop) -> Plan:
    """Choose the formats and what fits them as it came; asks the encoder for nothing but its parameter sets."""
    clips = [
        gathered.facts[name]
        for name in dict.fromkeys(clip for block in request.blocks for clip in block.clips)
        if name not in gathered.clip_problems
    ]
    videos = [clip.video for clip in clips if clip.video is not None]
    uniform = uniform_target(clips, request.join, request.fit)
    choice = choose_formats(videos, request.formats, request.fps, uniform)
    # Clips that fit each other keep their own encoder's parameter sets; otherwise ours rule.
    targets = [
        uniform if uniform and uniform.format == frame else Target(frame, profile_sets(frame, workshop), request.fit)
        for frame in choice.formats
    ]
    return Plan(
        request=request,
        targets=tuple(targets),
        reason=choice.reason,
        facts=gathered.facts,
        clip_problems=gathered.clip_problems,
        music_problems=gathered.music_problems,
        lines=lines,
    )
