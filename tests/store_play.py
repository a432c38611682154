"""A whole engine in one thread: hands out the store's units and answers them from the request alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from crosscut.request import parse_request
from crosscut.store import Options, Store, Submission
from crosscut.units import Failure, Lane, Outcome, Output, Spent, Unit
from crosscut.wants import request_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def body(*sizes: int, task: str = "task", **more: Any) -> dict[str, Any]:
    blocks = {f"b{b}": [f"https://example.com/{task}-{b}-{c}.mp4" for c in range(size)] for b, size in enumerate(sizes)}
    return {"task_name": task, "video_blocks": blocks, **more}


def submission(document: Mapping[str, Any], **more: Any) -> Submission:
    request = parse_request(document)
    values: dict[str, Any] = {
        "owner": "local",
        "mode": "make",
        "task_name": request.task_name,
        "body": document,
        "local": False,
        "base": None,
        "destination": "videos",
        "folder": request.task_name,
        "total": request.combinations,
    }
    return Submission(**(values | more))


def broken(code: str = "not_found", *, retryable: bool = False, **more: Any) -> Failure:
    return Failure("fetch", code, f"it is {code}", retryable=retryable, **more)


def leased(store: Store, lane: Lane) -> tuple[int, int] | None:
    """The next unit and its attempt."""
    return next(iter(store.lease(lane, lambda *_out: 1)), None)


@dataclass
class Play:
    """`copied` clips need no encoding; `trouble` may answer a unit in another way (None: as usual)."""

    store: Store
    copied: bool = False
    trouble: Callable[[Unit], Outcome | None] = lambda _unit: None
    done: list[tuple[str, str]] = field(default_factory=list)
    """(kind, what) of everything that was worked on, in order."""

    def lease(self, lane: Lane, worker: str = "w1") -> Unit | None:
        given = leased(self.store, lane)
        return given and self.store.start(*given, worker)

    def settle(self) -> None:
        self.store.admit()
        self.store.take_places()
        self.store.advance()

    def step(self) -> bool:
        """One unit of each lane; whether there was any."""
        self.settle()
        worked = False
        for lane in get_args(Lane):
            if unit := self.lease(lane):
                self.store.finish(unit.id, unit.attempt, self.work(unit))
                worked = True
        return worked

    def run(self, most: int = 10_000) -> None:
        for _ in range(most):
            if not self.step():
                self.settle()
                if not self.step():
                    return
        raise AssertionError("it never ends")

    def work(self, unit: Unit) -> Outcome:
        what = json.dumps(unit.payload.get("source") or unit.payload.get("text") or unit.payload.get("indexes"))
        self.done.append((unit.kind, what))
        answer = self.trouble(unit)
        return answer if answer is not None else getattr(self, f"_{unit.kind}")(unit)

    def _source(self, unit: Unit) -> Outcome:
        return Outcome({"source": {}, "facts": {}}, spent={"fetch": Spent(1, 0.5)}, meters={"bytes_in": 10})

    def _speech(self, unit: Unit) -> Outcome:
        return Outcome({"seconds": "1"}, spent={"speak": Spent(1, 0.1)}, meters={"characters": 5})

    def _plan(self, unit: Unit) -> Outcome:
        record = self.store.job(unit.job)
        assert record is not None
        request = request_of(record)
        problems = {found.name: found.error for found in self.store.found(unit.job) if found.error}
        targets = max(1, len(request.formats))
        slots, segments = [], {}
        for target in range(targets):
            for block, clips in enumerate(request.blocks):
                for choice, clip in enumerate(clips.clips):
                    key = None if self.copied else hashlib.sha256(f"{clip}/{target}".encode()).hexdigest()
                    problem = problems.get(clip)
                    slots.append([target, block, choice, None if problem else key, problem])
                    if key:
                        segments[key] = {"source": clip, "facts": {"video": {"duration": "1"}}}
        plan = {"plan": "{}", "targets": targets, "slots": slots, "segments": segments, "estimate": {}, "refused": None}
        return Outcome(plan)

    def _segment(self, unit: Unit) -> Outcome:
        return Outcome(spent={"conform": Spent(1, 2.0)})

    def _batch(self, unit: Unit) -> Outcome:
        made = tuple(
            Output(index, 100, hashlib.sha256(bytes([index % 256])).hexdigest(), "ab" * 16, -14.0, -1.5, 0.001)
            for index in unit.payload["indexes"]
        )
        return Outcome(outputs=made, spent={"deliver": Spent(len(made), 0.01)})

    def _manifest(self, unit: Unit) -> Outcome:
        return Outcome({"problem": None})

    def _webhook(self, unit: Unit) -> Outcome:
        return Outcome()


def options(**more: Any) -> Options:
    return Options(**({"processors": 2, "batch": 7} | more))
