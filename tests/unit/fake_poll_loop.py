"""A poll loop for tests: it polls nothing, and the test calls the handlers."""

from __future__ import annotations

from collections.abc import Callable

from msd.wire.net.poll_loop import PollLoop, Source


class FakePollLoop(PollLoop):
    """Records the handlers of the registered sources; the test sets ``now``."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.handlers: dict[Source, Callable[[], None]] = {}

    def register(self, source: Source, handler: Callable[[], None]) -> None:
        self.handlers[source] = handler

    def unregister(self, source: Source) -> None:
        del self.handlers[source]

    def run_handler(self) -> None:
        """Calls the handler of the only source, as if it were readable."""
        (handler,) = self.handlers.values()
        handler()
