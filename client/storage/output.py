"""The interface of an output: where a transfer writes the segments of a file, and what it reuses of earlier runs.

``part_file.py`` and ``update.py`` write files, ``stream_output.py`` writes to a stream.
"""

from __future__ import annotations

from collections.abc import Iterable


class Output:
    """The output of one download. The caller must ``close()`` it. Methods raise ``MsdError``.

    By default an output reuses nothing and is complete once its last segment is written.
    """

    @property
    def can_restart(self) -> bool:
        """True while the download may begin again with another version of the file, whatever was written so far."""
        return True

    @property
    def saved_progress(self) -> str:
        """What remains of an interrupted download, as text for the user."""
        raise NotImplementedError

    @property
    def data_location(self) -> str:
        """Where the data of a download that failed is, to be appended to the error message; may be empty."""
        raise NotImplementedError

    @property
    def output_matches(self) -> bool:
        """True while an existing output matches the manifest, so that nothing has to be written."""
        return False

    @property
    def descriptors(self) -> list[int]:
        """The descriptors of the files in which verified segments may lie, for a process that reads them, too."""
        return []

    def candidates(self) -> list[int]:
        """Returns the segments that an earlier run may have written, in ascending order."""
        return []

    def zero_segments(self) -> Iterable[int]:
        """Yields the all-zero segments that are complete without a write, because a hole reads as zeros."""
        return []

    def holds(self, index: int) -> bool:
        """Reads and hashes segment ``index``; True if it matches the manifest."""
        raise NotImplementedError

    def copy_next(self) -> bool:
        """Copies one segment from an existing output; False if none is left."""
        return False

    @property
    def uncopied_bytes(self) -> int:
        """Bytes of verified segments that are not in the output yet: ``copy_next`` has to copy them, or they wait to be
        written.
        """
        return 0

    def write(self, index: int, data: memoryview) -> None:
        """Writes a verified segment."""
        raise NotImplementedError

    def sha256(self) -> str:
        """Returns the SHA-256 of the complete file as hexadecimal digits."""
        raise NotImplementedError

    def sync(self) -> None:
        """Waits until the data is on the disk. Releases the GIL."""

    def publish(self, *, replace: bool, sync: bool) -> None:
        """Gives the complete output its final name. ``sync`` makes that survive a power failure."""

    def close(self) -> None:
        raise NotImplementedError
