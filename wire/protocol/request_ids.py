"""The ids of requests (``rid``), by which replies are matched with requests."""

from __future__ import annotations

import itertools

_RIDS = itertools.count(1)


def new_rid() -> int:
    """Returns a request id that is unique in this process, so a reply cannot be matched with the wrong request."""
    return next(_RIDS)
