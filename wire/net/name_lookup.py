"""Looks up the addresses of host names in a thread of its own.

The system's resolver blocks, for many seconds if a name server does not answer, and cannot be interrupted. Repeats a
look-up that fails for the moment; decides nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from msd.wire.errors import NoAnswerError, UsageError

#: Seconds between two attempts while a name cannot be looked up.
RETRY_INTERVAL_S = 0.5
#: Seconds after which a look-up that is not complete is reported.
NOTICE_S = 1.0
#: More addresses of one name are not used.
MAX_ADDRESSES = 8
#: The resolver's errors that mean that the name has no address; all others may pass.
_UNKNOWN_NAME = ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")

Addresses = Mapping[str, tuple[str, ...]]


class NameLookup:
    """Looks up ``names``, again and again until each is known or does not exist. Call ``cancel()`` to end it early."""

    def __init__(self, names: Iterable[str]) -> None:
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._error: UsageError | None = None
        #: Why the look-up is not complete.
        self.reason = ""
        self._cancelled = threading.Event()
        # A daemon: a resolver that waits for its name server cannot be ended.
        self._thread = threading.Thread(target=self._run, args=([*names],), daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Waits at most this long; returns True if the look-up is complete."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> Addresses:
        """Returns the addresses of each name, once the look-up is complete. Raises ``UsageError`` if a name does not
        exist.
        """
        if self._error is not None:
            raise self._error
        return self._addresses

    def cancel(self) -> None:
        self._cancelled.set()

    def _run(self, names: list[str]) -> None:
        for name in names:
            self.reason = f"looking up {name!r}: the name server does not answer"
            while not self._cancelled.is_set():
                try:
                    self._addresses[name] = addresses_of(name)
                    break
                except UsageError as error:
                    self._error = error
                    return
                except OSError as error:
                    self.reason = f"{name!r} cannot be looked up now ({error.strerror}): trying again"
                    self._cancelled.wait(RETRY_INTERVAL_S)


def look_up(
    names: Iterable[str],
    timeout: float | None = None,
    on_waiting: Callable[[str, float], None] = lambda reason, seconds: None,
) -> Addresses:
    """Returns the addresses of all names. ``on_waiting`` is called with the reason and the seconds so far if this takes
    long. Raises ``UsageError`` if a name does not exist, ``NoAnswerError`` after ``timeout`` seconds.
    """
    began, reported = time.monotonic(), ""
    lookup = NameLookup(names)
    try:
        # Waits in short steps, so that signals are handled in between.
        while not lookup.wait(0.1):
            waited, reason = time.monotonic() - began, lookup.reason
            if timeout is not None and waited >= timeout:
                raise NoAnswerError(f"gave up after {timeout:g} s: {reason}")
            if waited >= NOTICE_S and reason != reported:
                reported = reason
                on_waiting(reason, waited)
        return lookup.result()
    finally:
        lookup.cancel()


def addresses_of(name: str) -> tuple[str, ...]:
    """Returns the addresses of a name, in the order in which the system would try them. Raises ``UsageError`` if it has
    none, ``OSError`` if that cannot be known now.
    """
    import socket  # Slow to import, and not needed for an IP address.

    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno not in {getattr(socket, name, None) for name in _UNKNOWN_NAME}:
            raise
        found = []
    except UnicodeError:  # A label is empty or longer than 63 characters.
        found = []
    if not found:
        raise UsageError(f"unknown host {name!r}: check its name, or give an IP address")
    return tuple(dict.fromkeys(_numeric(address) for *_, address in found))[:MAX_ADDRESSES]


def _numeric(address: tuple[object, ...]) -> str:
    """Returns the host of a socket address; Python leaves out the scope of a link-local one."""
    host, scope = str(address[0]), address[3] if len(address) == 4 else 0
    if not isinstance(scope, int) or not scope or "%" in host:
        return host
    import socket

    return f"{host}%{socket.if_indextoname(scope)}"
