"""The name of the part file of a download: ``.OUT.msd-part``, or a shorter one if that is too long. Pure.

Does not open files: ``client/storage/locked_file.py`` does.
"""

from __future__ import annotations

from blake3 import blake3

PART_PREFIX, PART_SUFFIX = ".", ".msd-part"
#: Bytes of a shortened name. Encrypted home folders (ecryptfs) allow 143, most file systems 255.
MAX_SHORT_NAME = 143


def part_name(name: str) -> str:
    """Returns the name of the part file of a file, which may be too long."""
    return f"{PART_PREFIX}{name}{PART_SUFFIX}"


def is_part_name(name: str) -> bool:
    """True if a file of this name is a part file."""
    return name.startswith(PART_PREFIX) and name.endswith(PART_SUFFIX)


def name_of_part(part: str) -> str:
    """Returns the name of the file that a part file is for; only its beginning if it was shortened."""
    return part[len(PART_PREFIX) : -len(PART_SUFFIX)]


def short_name(name: str) -> str:
    """Returns a name for the part file of a file whose name leaves no room for the suffix. It depends only on ``name``,
    so that the next run finds the part file.
    """
    # A name of the local disk may hold bytes that are not UTF-8.
    encoded = f"{PART_PREFIX}{name}".encode(errors="surrogateescape")
    suffix = f"~{blake3(encoded).hexdigest()[:8]}{PART_SUFFIX}"
    beginning = encoded[: MAX_SHORT_NAME - len(suffix)]
    # Do not cut a character in half: some file systems accept UTF-8 only.
    return beginning.decode(errors="ignore") + suffix
