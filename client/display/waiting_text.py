"""Why a download waits and what ends the wait, for the user of a command. Pure."""

from __future__ import annotations

from msd.client.events import Waiting


def waiting_text(event: Waiting) -> str:
    """Returns the reason of a wait and, in parentheses, what ends the wait."""
    if event.timeout is not None:
        return f"{event.reason} (gives up after {event.timeout:g} s)"
    # The flag is proposed only if no server answers: other waits are expected, or the timeout does not count them.
    return f"{event.reason} (Ctrl-C ends the wait{', --timeout limits it' if event.addresses else ''})"
