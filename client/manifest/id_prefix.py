"""The id of a version as a user gives it: all of its digits, or the first ones. Pure.

``client/manifest/listing.py`` fetches the list in which the whole id is found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msd.wire.errors import NotFoundError, UsageError
from msd.wire.protocol.messages import Entry
from msd.wire.protocol.segments import DIGEST_SIZE

#: With six digits, one of 1,000 files shares the digits of another with a probability of 3 %.
MIN_DIGITS, MAX_DIGITS = 6, 2 * DIGEST_SIZE
#: An error names at most this many of the files that match.
MAX_NAMES = 3


def parse_id(id: bytes | str) -> str:
    """Returns the hexadecimal digits of an id, or of the beginning of one, in lower case. Raises ``UsageError``."""
    digits = id if isinstance(id, str) else id.hex()
    is_valid = re.fullmatch(r"[0-9A-Fa-f]+", digits) and MIN_DIGITS <= len(digits) <= MAX_DIGITS
    if not is_valid or (isinstance(id, bytes) and len(id) != DIGEST_SIZE):
        raise UsageError(
            f"id {digits}: an id has {MAX_DIGITS} hexadecimal digits, of which at least the first {MIN_DIGITS} are"
            " needed; msd list --json shows the ids",
            arguments=("id",),
        )
    return digits.lower()


def select_version(entries: Sequence[Entry], digits: str, name: str | None) -> bytes:
    """Returns the only id that begins with ``digits``, of the shared file ``name`` or, with None, of any shared file.

    Raises ``MsdError`` if there is none, or more than one.
    """
    matches = [(entry.name, entry.id) for entry in entries if entry.id and entry.id.hex().startswith(digits)]
    ids = {id for shared_name, id in matches if name in (None, shared_name)}
    if len(ids) == 1:
        return ids.pop()
    if ids:
        named = [f"{shared_name!r} ({id.hex()[: len(digits) + 4]}…)" for shared_name, id in matches]
        raise UsageError(f"id {digits} is ambiguous: it matches {_join(named)}: give more digits", arguments=("id",))
    if matches:
        raise other_file_error(digits, [shared_name for shared_name, _ in matches], name)
    raise NotFoundError(f"no shared file has an id that begins with {digits}: msd list --json shows the ids")


def other_file_error(digits: str, names: Sequence[str], name: str | None) -> NotFoundError:
    """Returns the error for an id that belongs to the files ``names`` and not to the file ``name``."""
    return NotFoundError(f"the id {digits} is that of {_join([*map(repr, names)])}, not of {name!r}: give one of them")


def _join(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMES
    return " and ".join([*names[:MAX_NAMES], *([f"{more} more"] if more > 0 else [])])
