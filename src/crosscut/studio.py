"""One job's variations from its plan, in one process: made and delivered, played before they are, told as rows."""

from __future__ import annotations

import base64
import contextlib
import traceback
from collections import deque
from dataclasses import replace
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from crosscut.artifacts import artifact_key
from crosscut.captions import companion, srt
from crosscut.cuts import cut_of
from crosscut.depot import UNAVAILABLE
from crosscut.destinations import EVERYONE
from crosscut.errors import CrosscutError, DeliverError, SpliceError, StorageError
from crosscut.pieces import Pieces, Shot
from crosscut.plandoc import plan_of
from crosscut.poster import SECOND, poster_size
from crosscut.soundtracks import VERSION as SOUND_VERSION
from crosscut.soundtracks import samples_of
from crosscut.speech import has_track
from crosscut.splice import VERSION as SPLICE_VERSION
from crosscut.telemetry import Telemetry
from crosscut.units import Failure, Output
from crosscut.workshop import Meters, MissingError, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from crosscut.captions import Captions
    from crosscut.destinations import Delivered, Delivery
    from crosscut.plan import Variation
    from crosscut.plandoc import PlanDoc
    from crosscut.request import Request
    from crosscut.soundtracks import Mixed
    from crosscut.splice import VirtualFile
    from crosscut.workshop import Workshop

AHEAD = 64
"""Variations looked ahead: their tails are made together."""

DELIVERIES = 4
"""Variations written at the same time, so that waiting for the disk overlaps."""

UNEXPECTED = "it could not be made because of an error in crosscut: report it, with the line of the log"

END_ALL = frozenset({
    "cancelled", "disk_full", "no_credentials", "wrong_credentials", "no_permission", "no_such_bucket", "storage_full",
    "no_storage", "not_connected", "consent_expired", "not_delegated", "missing_scope", "api_disabled", "daily_limit",
    "not_permitted", "shared_drive_full", "folder_full", "forbidden_by_policy", UNAVAILABLE,
})  # fmt: skip
"""Codes of errors that every variation after would meet as well."""

NOTHING: Mapping[tuple[int, int, int], str] = MappingProxyType({})

TOLD = 16
"""Hexadecimal digits of a recipe that say what the variation is told to be; the others say what it is made of."""


class Studio:
    """Thread-safe, but one `make` at a time. What it shows stays readable for as long as the workshop's lease is."""

    def __init__(self, request: Request, doc: PlanDoc, workshop: Workshop, base: Path | None = None) -> None:
        """`base` is where relative paths of sources start; None: there are none."""
        self.doc = doc
        self.plan = plan_of(doc, request)
        self._workshop = workshop
        self._base = base
        self._halted: CrosscutError | None = None
        self._pieces = Pieces(self.plan, doc, workshop, base)
        looking = replace(workshop, looking=True, telemetry=Telemetry(), meters=Meters())
        self._seen = Pieces(self.plan, doc, looking, base)

    def use(self, workshop: Workshop) -> None:
        """Go on with other telemetry, meters and `cancelled`, but the same lease; not while something is made."""
        self._workshop = workshop

    def make(
        self, indexes: Iterable[int], delivery: Delivery, earlier: Callable[[int], Output | None] = lambda _: None
    ) -> Generator[Output, None, None]:
        """Deliver these variations, each once; what came of each, in about their order.

        One that fails is an output with an `error`. Raises what keeps all others from being made too (see `END_ALL`
        and `EVERYONE`), after the outputs of those that were finished; closed early, it sets `cancelled` of its
        workshop. `earlier` tells of files that may be there.
        """
        workshop = self._workshop
        waiting: deque[tuple[Variation, Future[Output]]] = deque()
        variations = map(self.plan.variation, indexes)
        with (
            Threads(workshop.workers, "conform") as encoders,
            Threads(workshop.workers, "mix") as mixers,
            Threads(DELIVERIES, "deliver") as writers,
        ):
            self._pieces.use(workshop, encoders, mixers)
            self._halted = None
            try:
                while batch := list(islice(variations, AHEAD)):
                    due = []
                    for variation in batch:
                        before = earlier(variation.index)
                        if settled := self._settled(variation, before, delivery):
                            yield settled
                        else:
                            due.append((variation, before is not None))
                    self._pieces.ask(variation for variation, _ in due)
                    waiting.extend((one, writers.submit(self._deliver, one, delivery, again)) for one, again in due)
                    while len(waiting) > AHEAD:
                        yield self._outcome(*waiting.popleft())
                while waiting:
                    yield self._outcome(*waiting.popleft())
            except CrosscutError:
                yield from self._finished(waiting)
                raise
            except BaseException:
                workshop.cancelled.set()
                raise
            finally:
                for pool in (writers, encoders, mixers):
                    pool.shutdown(cancel_futures=True)
                self._pieces.settle()

    def playable(self, index: int) -> VirtualFile | None:
        """The variation as a file, if its pieces are all there; nothing is made."""
        variation = self.plan.variation(index)
        if variation.problem:
            return None
        try:
            return self._seen.joined(variation, self._seen.soundtrack_now(variation))
        except MissingError:
            self._seen.settle()
            return None

    def poster(self, index: int) -> bytes | None:
        """A JPEG of the variation's first clip, from its segment or its source; None where neither is at hand."""
        variation = self.plan.variation(index)
        clip = next(iter(variation.clips))
        if clip in self.doc.clip_problems:
            return None
        target, rendition = self.plan.targets[variation.target], self.plan.renditions[clip, variation.target]
        video = self.doc.facts[clip].video
        assert video is not None, "a usable clip has pictures"
        path = self._workshop.lease.get(self._seen.segment_key(Shot(clip, variation.target)), ".mp4")
        upright = path is not None or not rendition.reasons
        with contextlib.suppress(MissingError):
            path = path or self._seen.source(clip).path
        if path is None:
            return None
        width, height = poster_size(target.format.width, target.format.height)
        length = rendition.frames / target.format.fps
        answer = self._workshop.run(
            "crosscut.poster:draw",
            inputs=[path],
            width=width,
            height=height,
            fit=target.fit,
            rotation=0 if upright else video.rotation,
            pixel_aspect="1" if upright else str(video.pixel_aspect),
            at=str(min(SECOND, length / 2) + (0 if upright else cut_of(clip).start)),
        )
        return base64.b64decode(answer["jpeg"])

    def row(self, index: int, output: Output | None = None) -> dict[str, Any]:
        """What the manifest tells of a variation and what came of it (see `report.COLUMNS`), and its `name`."""
        variation = self.plan.variation(index)
        request, target = self.plan.request, self.plan.targets[variation.target]
        names = self.doc.names
        lines = [said.line for said in variation.said] or self.plan.lines_of(variation)
        voices = [voiced.id for line in lines if (voiced := self.doc.voices[line])]
        made = output if output and not output.error else None
        problem = None if made else variation.problem
        if output and output.error:
            problem = output.error.public
        return {
            "index": index,
            "name": variation.name,
            "file": made and variation.name,
            "captions": companion(variation.name) if made and has_track(self.plan, variation) else None,
            "clips": [names[clip] for clip in variation.clips],
            "format": self.plan.format_names[variation.target],
            "music": None if variation.music is None else names[request.music[variation.music]],
            "voice_over": " / ".join(request.lines[line].text for line in lines) or None,
            "voice": " / ".join(dict.fromkeys(voices)) or None,
            "duration": None if problem or variation.problem else round(float(self.plan.length(variation)), 6),
            "hold": round(float(variation.held / target.format.fps), 6),
            "speed": float(variation.speed),
            "bytes": made and made.bytes,
            "bytes_sent": made and made.sent,
            "sha256": made and made.sha256,
            "loudness_before": made and made.loudness_before,
            "loudness": made and made.loudness,
            "true_peak": made and made.true_peak,
            "seconds": output.seconds if output else 0.0,
            "link": made and made.link,
            "error": problem,
        }

    def rows(
        self, outputs: Iterable[Output], *, stopped: bool = False, broken: Mapping[tuple[int, int, int], str] = NOTHING
    ) -> Iterator[dict[str, Any]]:
        """The manifest: what came out (`outputs` in order) and what cannot be made; of a `stopped` job what was made.

        `broken` has sentences for clips that could not be prepared, by (target, block, choice).
        """
        if stopped:
            yield from (self.row(output.index, output) for output in outputs if not output.error)
            return
        coming = iter(outputs)
        output = next(coming, None)
        for index in range(1, len(self.plan) + 1):
            if output and output.index == index:
                yield self.row(index, output)
                output = next(coming, None)
            elif problem := self.cannot(index, broken):
                yield self.row(index, Output(index, error=Failure("plan", "unusable_source", problem)))

    def cannot(self, index: int, broken: Mapping[tuple[int, int, int], str] = NOTHING) -> str | None:
        """Why the variation cannot be made, as far as the plan and what is `broken` tell; see `rows`."""
        variation = self.plan.variation(index)
        slots = ((variation.target, block, choice) for block, choice in enumerate(variation.combination))
        return variation.problem or next((broken[slot] for slot in slots if slot in broken), None)

    def places_of(self, clip: str) -> set[tuple[int, int]]:
        """Where a clip stands, by what it is called or was given as: (block, choice)."""
        return {
            (block, choice)
            for block, named in enumerate(self.plan.request.blocks)
            for choice, source in enumerate(named.clips)
            if clip in (source, cut_of(source).source, self.doc.names[source])
        }

    def fingerprint(self, variation: Variation, *, grouped: bool = False) -> str:
        """Names everything that decides the file's bytes, before any piece is made; for what can be made.

        `grouped` is how the file lies where it is delivered (see `Delivery.grouped`). Its first digits say only what
        the variation is told to be, which is known without its sources.
        """
        request = self.plan.request
        music = None
        if variation.music is not None:
            number = variation.music
            music = (self.doc.sources[request.music[number]].sha256, request.music_starts[number : number + 1])
        made_of = artifact_key(
            "variation",
            name=variation.name,
            segments=[self._pieces.segment_key(shot) for shot in self._pieces.shots(variation)],
            holds=(variation.hold, [slot.hold for slot in variation.slots]),
            music=music,
            mix=request.mix,
            lines=[(self._voice_key(said.line), said.speed, said.start) for said in variation.said],
            clips=self._clip_sounds(variation),
            samples=samples_of(self.plan.length(variation)),
            versions=(SOUND_VERSION, SPLICE_VERSION),
            **({"layout": "grouped"} if grouped else {}),
            **self._pieces.captions_recipe(variation),
        )
        return self._told(variation) + made_of[TOLD:]

    def _voice_key(self, line: int) -> str | None:
        voiced = self.doc.voices[line]
        return voiced.key if voiced else None

    def _clip_sounds(self, variation: Variation) -> list[tuple[str, float]]:
        """What is heard of the clips: contents and volumes; when and how much of each, its segment says."""
        if self.plan.request.clip_sound == "mute":
            return []
        return [(self.doc.sources[clip].sha256, cut_of(clip).volume) for clip in variation.clips]

    def poster_key(self, index: int) -> str:
        """The same for variations that have the same poster."""
        variation = self.plan.variation(index)
        clip = next(iter(variation.clips))
        if clip in self.doc.clip_problems:
            return artifact_key("no poster", clip=clip)
        return self._seen.segment_key(Shot(clip, variation.target))

    def _told(self, variation: Variation) -> str:
        request, lines = self.plan.request, self.plan.lines_of(variation)
        captions = None
        if lines and request.captions != "none":
            languages = [request.lines[line].manner.language for line in lines]
            captions = (request.captions, request.caption_style, languages)
        return artifact_key(
            "told",
            name=variation.name,
            clips=[self.doc.names[clip] for clip in variation.clips],
            format=self.plan.format_names[variation.target],
            music=None if variation.music is None else self.doc.names[request.music[variation.music]],
            voice_over=[request.lines[line].text for line in lines],
            captions=captions,
        )[:TOLD]

    def _settled(self, variation: Variation, earlier: Output | None, delivery: Delivery) -> Output | None:
        """What is known at once: it is there already, or it cannot be made."""
        if earlier and self._is_kept(variation, earlier, delivery):
            return replace(earlier, index=variation.index, kept=True, sent=0)
        if variation.problem:
            return Output(variation.index, error=Failure("plan", "unusable_source", variation.problem))
        return None

    def _is_kept(self, variation: Variation, earlier: Output, delivery: Delivery) -> bool:
        if earlier.error or earlier.recipe is None or earlier.bytes is None:
            return False
        if variation.problem:
            # A source is out of reach now; what was made of it stays what it was.
            same = earlier.recipe[:TOLD] == self._told(variation)
        else:
            same = earlier.recipe == self.fingerprint(variation, grouped=delivery.grouped)
        beside = [companion(variation.name)] if has_track(self.plan, variation) else []
        return same and delivery.holds(variation.name, earlier.bytes) and all(map(delivery.holds, beside))

    def _deliver(self, variation: Variation, delivery: Delivery, again: bool) -> Output:
        """Splice and write one variation, unless another has met what ends all; `again`: one of an earlier job's."""
        if self._halted:
            raise self._halted
        try:
            output = self._whole(variation, delivery)
            if (again or self.plan.request.captions == "soft") and not has_track(self.plan, variation):
                beside = companion(variation.name)
                if delivery.holds(beside):
                    delivery.remove(beside)
        except CrosscutError as error:
            if ends_all(error):
                self._halted = error
            raise
        else:
            return output

    def _whole(self, variation: Variation, delivery: Delivery) -> Output:
        """Once more where a piece turns out to be damaged."""
        try:
            return self._delivered(variation, delivery, self._pieces, self._pieces.soundtrack(variation))
        except StorageError as error:
            if error.code != "damaged_artifact":
                raise
        fresh = Pieces(self.plan, self.doc, self._workshop, self._base)
        return self._delivered(variation, delivery, fresh, fresh.soundtrack_now(variation))

    def _delivered(self, variation: Variation, delivery: Delivery, pieces: Pieces, mixed: Mixed | None) -> Output:
        self._workshop.check_cancelled()
        telemetry = self._workshop.telemetry
        start = telemetry.clock()
        file, captions = pieces.joined(variation, mixed, grouped=delivery.grouped), pieces.captions(variation)
        with telemetry.timed("deliver", variation=variation.index, file=variation.name):
            delivered = self._put(variation.name, file, captions, delivery)
        self._count(delivered)
        return Output(
            variation.index,
            bytes=delivered.bytes,
            sha256=delivered.sha256,
            sent=delivered.sent,
            recipe=self.fingerprint(variation, grouped=delivery.grouped),
            loudness_before=_rounded(mixed.before) if mixed else None,
            loudness=_rounded(mixed.loudness) if mixed else None,
            true_peak=_rounded(mixed.true_peak) if mixed else None,
            seconds=round(telemetry.clock() - start, 4),
            link=delivered.link,
        )

    def _count(self, delivered: Delivered) -> None:
        meters = self._workshop.meters
        meters.add("bytes_out", delivered.bytes)
        meters.add("bytes_sent", delivered.sent)
        meters.add("retries", delivered.retries)
        meters.add("joined", delivered.joined)
        if delivered.refusal is not None:
            meters.add("join_refusals", 1)
            self._workshop.telemetry.log.warning("not_joined", detail=delivered.refusal)

    def _put(self, name: str, file: VirtualFile, captions: Captions | None, delivery: Delivery) -> Delivered:
        """The video, then its captions beside it; where either fails, none are left there."""
        beside = companion(name)
        try:
            delivered = delivery.put(name, file)
            if captions:
                delivery.put_text(beside, srt(captions.cues))
        except Exception:
            if captions:
                with contextlib.suppress(CrosscutError):
                    delivery.remove(beside)
            raise
        return delivered

    def _outcome(self, variation: Variation, future: Future[Output]) -> Output:
        try:
            return future.result()
        except CrosscutError as error:
            self._workshop.telemetry.failed(error, variation=variation.index)
            if ends_all(error):
                raise
            return Output(variation.index, error=failure(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs this variation and not the job
            detail = "".join(traceback.format_exception(error))
            unexpected = SpliceError(UNEXPECTED, code="unexpected", detail=detail)
            self._workshop.telemetry.failed(unexpected, variation=variation.index)
            return Output(variation.index, error=failure(unexpected))

    @staticmethod
    def _finished(waiting: Iterable[tuple[Variation, Future[Output]]]) -> Iterator[Output]:
        """What of these was in hand and ends well; the rest is not begun."""
        begun = [future for _, future in waiting if not future.cancel()]
        for future in begun:
            if future.exception() is None:
                yield future.result()


def ends_all(error: CrosscutError) -> bool:
    """Whether it would be the same with every other variation now."""
    return error.code in END_ALL or (isinstance(error, DeliverError) and error.code in EVERYONE)


def failure(error: CrosscutError, public: str | None = None) -> Failure:
    return Failure(
        stage=error.stage,
        code=error.code,
        public=public or error.public,
        retryable=error.retryable or error.code == "cancelled",
        after=error.after,
        everyone=error.code == UNAVAILABLE or (isinstance(error, DeliverError) and error.code in EVERYONE),
    )


def _rounded(decibels: float | None) -> float | None:
    return None if decibels is None else round(decibels, 2)
