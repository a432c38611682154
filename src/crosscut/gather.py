"""Sources in: fetch and probe what a request names, draw the plan from what was found, and find it again later."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from threading import Semaphore
from typing import TYPE_CHECKING

from crosscut.cuts import cut_of, part_of, too_short
from crosscut.errors import CrosscutError, FetchError, StorageError
from crosscut.fetch import Source
from crosscut.guard import redact
from crosscut.media import ClipFacts, Target
from crosscut.plan import Plan, SpokenLine
from crosscut.plandoc import FACTS, ORIGIN, Origin, PlanDoc, filenames_of
from crosscut.probe import probe
from crosscut.segments import profile_sets
from crosscut.speech import expected, speak_all, voice_or_why
from crosscut.targets import choose_formats, uniform_target
from crosscut.telemetry import CREDENTIALS
from crosscut.workshop import MissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from crosscut.media import Join
    from crosscut.plandoc import Voiced
    from crosscut.request import Request
    from crosscut.units import Found
    from crosscut.workshop import Workshop

UPLOAD = "source:"
"""Begins the name of a source that was uploaded; its SHA-256 follows."""

DOWNLOADS = 8
"""Sources fetched at the same time."""


@dataclass(frozen=True)
class Gathered:
    """What is known of the sources, by the source as the request names it.

    `clip_problems` and `music_problems` hold a sentence for each that cannot be used; a file may be fit for one use
    and not for the other.
    """

    names: Mapping[str, str]
    sources: Mapping[str, Origin]
    facts: Mapping[str, ClipFacts]
    clip_problems: Mapping[str, str]
    music_problems: Mapping[str, str]

    @classmethod
    def of(
        cls,
        request: Request,
        names: Mapping[str, str],
        found: Mapping[str, tuple[Origin, ClipFacts]],
        broken: Mapping[str, str],
        earlier: PlanDoc | None = None,
    ) -> Gathered:
        """`found` and `broken`, the sentence why it could not be had, are by source, without what is wished of it.

        What an `earlier` plan knows stays as it was.
        """
        clips = dict.fromkeys(clip for block in request.blocks for clip in block.clips)
        origins, facts, problems = {}, {}, {}
        for name in dict.fromkeys([*clips, *request.music]):
            cut = cut_of(name)
            if earlier and name in earlier.facts:
                origins[name], facts[name] = earlier.sources[name], earlier.facts[name]
            elif cut.source in found:
                origin, whole = found[cut.source]
                if why := too_short(whole, cut):
                    problems[name] = f"{names[name]}: {why}"
                else:
                    origins[name], facts[name] = origin, part_of(whole, cut)
            else:
                why = broken.get(cut.source, f"{shown(cut.source)} was not fetched: run the job again")
                # Who fetched it did not know this job and its names.
                problems[name] = why.replace(shown(cut.source), names[name], 1)
        return cls(
            names=names,
            sources=origins,
            facts=facts,
            clip_problems=_problems(clips, names, problems, facts, lambda of: of.video, "has sound but no pictures"),
            music_problems=_problems(request.music, names, problems, facts, lambda of: of.audio, "has no sound"),
        )


def shown(clip: str) -> str:
    """A source as it may stand in sentences, logs and manifests: by its label, or as given without a URL's secrets."""
    cut = cut_of(clip)
    if cut.label:
        return cut.label
    source = cut.source
    if source.startswith(UPLOAD):
        return source.partition("/")[2] or source
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


def obtain(source: str, base: Path | None, workshop: Workshop) -> Source:
    """The file behind a link, a path relative to `base` (None: there are none) or the id of an upload."""
    if workshop.looking:
        raise MissingError(shown(source))
    if source.startswith(UPLOAD):
        return _uploaded(source, workshop)
    arrived = 0

    def count(size: int, _total: int | None) -> None:
        nonlocal arrived
        arrived = size

    fetched = workshop.fetcher.fetch(source, base=base, on_progress=count, cancelled=workshop.cancelled)
    workshop.meters.add("bytes_in", arrived)
    workshop.meters.add("cache_misses" if arrived else "cache_hits", 1)
    return fetched


def _uploaded(source: str, workshop: Workshop) -> Source:
    sha256 = source.removeprefix(UPLOAD).partition("/")[0]
    path = workshop.lease.content(sha256)
    if path is None:
        gone = f"{shown(source)} was uploaded but is not there any more: upload it again."
        raise FetchError(gone, code="upload_gone")
    return Source(shown(source), sha256, path, path.stat().st_size)


@dataclass(frozen=True)
class Planned:
    """A source as the plan knows it; its file is fetched again where the store has lost it."""

    origin: Origin
    source: str
    base: Path | None
    workshop: Workshop

    @property
    def label(self) -> str:
        return self.origin.label

    @property
    def sha256(self) -> str:
        return self.origin.sha256

    @property
    def path(self) -> Path:
        """Raises FetchError where it cannot be had any more, or has become another file."""
        if path := self.workshop.lease.content(self.sha256, self.origin.size):
            return path
        again = obtain(self.source, self.base, self.workshop)
        if again.sha256 != self.sha256:
            raise FetchError(
                f"{again.label} is another file now than when the job was planned: send the job again.",
                code="source_changed",
            )
        return again.path


def study(
    source: str, name: str, base: Path | None, workshop: Workshop, processors: Semaphore
) -> tuple[Source, ClipFacts]:
    """Fetch and probe one source; only the second takes one of the `processors`."""
    with workshop.telemetry.piece("fetch"), workshop.telemetry.timed("fetch", source=name):
        fetched = obtain(source, base, workshop)
    with workshop.telemetry.piece("probe"), processors, workshop.telemetry.timed("probe", source=name):
        return fetched, probe(fetched, workshop.lease, workshop.sandbox, workshop.cancelled)


def gather(request: Request, base: Path | None, workshop: Workshop) -> Gathered:
    """Fetch and probe every distinct source; relative paths start at `base` (None: only URLs are allowed)."""
    clips = (cut_of(clip).source for block in request.blocks for clip in block.clips)
    wanted = [*dict.fromkeys([*clips, *request.music])]
    telemetry = workshop.telemetry
    telemetry.expect("fetch", len(wanted))
    telemetry.expect("probe", len(wanted))
    processors = Semaphore(workshop.workers)

    def one(source: str) -> tuple[Origin, ClipFacts] | str:
        try:
            fetched, facts = study(source, shown(source), base, workshop, processors)
        except CrosscutError as error:
            telemetry.failed(error, source=shown(source))
            return sentence(source, shown(source), error)
        return origin_of(fetched), facts

    with workshop.pool(DOWNLOADS, "fetch") as pool:
        answers = dict(zip(wanted, pool.map(one, wanted), strict=True))
    found = {source: answer for source, answer in answers.items() if not isinstance(answer, str)}
    broken = {source: answer for source, answer in answers.items() if isinstance(answer, str)}
    return Gathered.of(request, name_sources(request), found, broken)


def recalled(request: Request, found: Iterable[Found], earlier: PlanDoc | None) -> Gathered:
    """The same from what was found elsewhere; what an `earlier` plan knows stays as it was."""
    names = name_sources(request) | (dict(earlier.names) if earlier else {})
    known, broken = {}, {}
    for each in found:
        if each.kind == "source" and each.result is not None:
            origin = ORIGIN.validate_python(each.result["source"])
            known[each.name] = origin, FACTS.validate_python(each.result["facts"])
        elif each.kind == "source" and each.error is not None:
            broken[each.name] = each.error
    return Gathered.of(request, names, known, broken, earlier)


def origin_of(source: Source) -> Origin:
    return Origin(source.label, source.sha256, source.size, source.note, source.filename)


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


def draw_plan(
    request: Request,
    gathered: Gathered,
    lines: Sequence[SpokenLine | str],
    workshop: Workshop,
    earlier: PlanDoc | None = None,
) -> Plan:
    """Choose the formats, or keep those of an `earlier` plan, and what fits them as it came.

    The encoder is asked for nothing but its parameter sets.
    """
    targets, reason, wide = (
        (earlier.targets, earlier.reason, earlier.wide_targets) if earlier else _chosen(request, gathered, workshop)
    )
    return Plan(
        request=request,
        targets=targets,
        reason=reason,
        facts=gathered.facts,
        clip_problems=gathered.clip_problems,
        music_problems=gathered.music_problems,
        lines=tuple(lines),
        wide_targets=wide,
        filenames=filenames_of(gathered.sources),
    )


def decide(request: Request, base: Path | None, workshop: Workshop, *, spend: bool = True) -> PlanDoc:
    """The plan of a request, in this process: sources are fetched and read, lines spoken, formats chosen.

    Without `spend` lines are spoken only where that is free, else their lengths are estimated.
    """
    gathered = gather(request, base, workshop)
    free = spend or workshop.voice.free
    voices = [voice_or_why(line, workshop) for line in request.lines]
    lines: Sequence[SpokenLine | str] = (
        speak_all(request.lines, workshop) if free else expected(request.lines, workshop)
    )
    lines = [voice if isinstance(voice, str) else line for voice, line in zip(voices, lines, strict=True)]
    plan = draw_plan(request, gathered, lines, workshop)
    return document(plan, gathered, [None if isinstance(voice, str) else voice for voice in voices])


def document(plan: Plan, gathered: Gathered, voices: Sequence[Voiced | None]) -> PlanDoc:
    """The plan with all that is needed to carry it out elsewhere."""
    return PlanDoc(
        targets=plan.targets,
        reason=plan.reason,
        wide_targets=plan.wide_targets,
        names=gathered.names,
        sources=gathered.sources,
        facts=gathered.facts,
        clip_problems=gathered.clip_problems,
        music_problems=gathered.music_problems,
        lines=plan.lines,
        voices=tuple(voices),
    )


def _chosen(
    request: Request, gathered: Gathered, workshop: Workshop
) -> tuple[tuple[Target, ...], str, tuple[Target, ...]]:
    """Targets, the reason for them, and what they would be with a wide join."""
    clips = [
        gathered.facts[name]
        for name in dict.fromkeys(clip for block in request.blocks for clip in block.clips)
        if name not in gathered.clip_problems
    ]
    videos = [clip.video for clip in clips if clip.video is not None]

    def chosen(join: Join) -> tuple[tuple[Target, ...], str]:
        # Captions are drawn by our own encoder: nothing may be joined that needs another one's parameter sets.
        drawn = request.captions == "burn" and join == "safe" and request.lines
        uniform = None if drawn else uniform_target(clips, join, request.fit)
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
    return targets, reason, targets if request.join == "wide" else chosen("wide")[0]
