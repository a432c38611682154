"""What obstore is asked for, waited for by a thread that may be called off: the request ends then, too."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

LOOK_SECONDS = 0.1
LAST_SECONDS = 0.25


def waited(ask: Callable[[], Awaitable[T]], check: Callable[[], None], grace: float = 0.0) -> T:
    """What comes of it; soon after `check` begins to raise, it is given up, and what `check` raised is raised.

    It has `grace` seconds to end in order, where something else calls it off.
    """

    async def asked() -> T:
        return await ask()

    future = asyncio.run_coroutine_threadsafe(asked(), _loop())
    end = None
    while True:
        try:
            return future.result(LOOK_SECONDS)
        except TimeoutError:
            if future.done():
                raise
        try:
            check()
        except BaseException:
            end = end or time.monotonic() + grace
            if time.monotonic() >= end:
                future.cancel()
                raise


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The one of this process."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="obstore", daemon=True)
    thread.start()

    def end() -> None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        # A thread of obstore that has just told what came of a request wants the interpreter once more, to let go of
        # its objects. Where it is ending by then, the whole process is aborted.
        time.sleep(LAST_SECONDS)

    atexit.register(end)
    return loop
