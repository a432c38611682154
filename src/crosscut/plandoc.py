"""The decided plan as one JSON document and back, exactly: what a worker needs besides the request. Pure."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  pydantic reads the annotations here
from dataclasses import dataclass

from pydantic import TypeAdapter

from crosscut.media import ClipFacts, Target
from crosscut.plan import Plan, SpokenLine
from crosscut.request import Request  # noqa: TC001


@dataclass(frozen=True)
class Origin:
    """A source as it was fetched for the plan; `note` is for the user, `label` may stand in sentences."""

    label: str
    sha256: str
    size: int
    note: str | None = None
    filename: str | None = None
    """What its server calls the file, where the link does not tell."""


@dataclass(frozen=True)
class Voiced:
    """The voice a line is spoken by and the key of what it says; `note` tells where another was asked for."""

    id: str
    key: str
    note: str | None = None


@dataclass(frozen=True)
class PlanDoc:
    """What was found and chosen; mappings are keyed by source, as the request names it."""

    targets: tuple[Target, ...]
    reason: str
    wide_targets: tuple[Target, ...]
    names: Mapping[str, str]
    """What to call each source in sentences, logs and manifests."""
    sources: Mapping[str, Origin]
    facts: Mapping[str, ClipFacts]
    clip_problems: Mapping[str, str]
    music_problems: Mapping[str, str]
    lines: tuple[SpokenLine | str, ...]
    voices: tuple[Voiced | None, ...]
    """For each line; None where there is no voice for it."""

    def as_json(self) -> str:
        return _DOCUMENT.dump_json(self).decode()

    @classmethod
    def of(cls, document: str) -> PlanDoc:
        return _DOCUMENT.validate_json(document)

    @property
    def notes(self) -> list[str]:
        """What the user should know of sources and voices."""
        notes = [origin.note for origin in self.sources.values()] + [voice.note for voice in self.voices if voice]
        return list(dict.fromkeys(note for note in notes if note))

    @property
    def sizes(self) -> dict[str, int]:
        return {source: origin.size for source, origin in self.sources.items()}


FACTS = TypeAdapter(ClipFacts)
TARGET = TypeAdapter(Target)
ORIGIN = TypeAdapter(Origin)
_DOCUMENT = TypeAdapter(PlanDoc)


def filenames_of(sources: Mapping[str, Origin]) -> dict[str, str]:
    return {source: origin.filename for source, origin in sources.items() if origin.filename}


def plan_of(doc: PlanDoc, request: Request) -> Plan:
    return Plan(
        request=request,
        targets=doc.targets,
        reason=doc.reason,
        facts=doc.facts,
        clip_problems=doc.clip_problems,
        music_problems=doc.music_problems,
        lines=doc.lines,
        wide_targets=doc.wide_targets,
        filenames=filenames_of(doc.sources),
    )
