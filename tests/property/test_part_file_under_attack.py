"""Another program does anything to the part file, at any moment: a download that ends without an error has the right
content, on a real file system."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msd.client.storage.part_file import PartFile
from msd.client.storage.update import UpdatePartFile
from msd.wire.errors import DiskError, MsdError
from tests.unit.client.storage.test_part_file import content, manifest_of, segment_of

DATA = content(12 * 4096)
MANIFEST = manifest_of(DATA)
SEGMENTS = MANIFEST.segments
assert SEGMENTS == 12


#: The clock of file times (time.h).
CLOCK_REALTIME_COARSE = 5


class Attacker:
    """Another program. ``fd`` is a descriptor that it opened before the download started."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.part = output.with_name(f".{output.name}.msd-part")
        self.fd = os.open(self.part, os.O_RDWR | os.O_CREAT)

    def close(self) -> None:
        os.close(self.fd)

    def truncate(self) -> None:
        with self.part.open("r+b") as file:
            file.truncate(5000)

    def truncate_and_extend(self) -> None:
        size = self.part.stat().st_size
        with self.part.open("r+b") as file:
            file.truncate(0)
            file.truncate(size)

    def overwrite(self) -> None:
        with self.part.open("r+b") as file:
            file.seek(7000)
            file.write(b"\0\1\2")

    def overwrite_and_restore_the_time(self) -> None:
        status = self.part.stat()
        self.overwrite()
        os.utime(self.part, ns=(status.st_atime_ns, status.st_mtime_ns))

    def overwrite_in_memory(self) -> None:
        if self.part.stat().st_size > 30003:  # Otherwise the download has not yet set the size.
            with self.part.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
                mapped[30000:30003] = b"\0\1\2"

    def overwrite_with_an_old_descriptor(self) -> None:
        """Nothing but the file's times can tell of this write: wait until the clock of the times has moved on."""
        before = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
        while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) == before:
            pass
        os.pwrite(self.fd, b"\0\1\2", 20000)

    def remove(self) -> None:
        self.part.unlink()

    def exchange(self) -> None:
        """Puts an equally large file with other content in place of the part file."""
        size = self.part.stat().st_size
        other = self.part.with_name("other")
        other.write_bytes(bytes(size))
        other.rename(self.part)

    def move_away_and_back(self) -> None:
        moved = self.part.rename(self.part.with_name("moved"))
        self.overwrite_at(moved)
        moved.rename(self.part)

    def overwrite_at(self, path: Path) -> None:
        with path.open("r+b") as file:
            file.write(b"\0\1\2")

    def link(self) -> None:
        os.link(self.part, self.part.with_name("link"))

    def link_to_output(self) -> None:
        link = self.part.with_name("link")
        os.link(self.part, link)
        link.replace(self.output)

    def touch(self) -> None:
        os.utime(self.part)

    def change_mode(self) -> None:
        self.part.chmod(0o600)

    def read(self) -> None:
        self.part.read_bytes()


ACTS: list[Callable[[Attacker], None]] = [
    Attacker.truncate,
    Attacker.truncate_and_extend,
    Attacker.overwrite,
    Attacker.overwrite_and_restore_the_time,
    Attacker.overwrite_in_memory,
    Attacker.overwrite_with_an_old_descriptor,
    Attacker.remove,
    Attacker.exchange,
    Attacker.move_away_and_back,
    Attacker.link,
    Attacker.link_to_output,
    Attacker.touch,
    Attacker.change_mode,
    Attacker.read,
]
#: Acts after which the file is still complete, and the download must succeed.
HARMLESS = {Attacker.link, Attacker.touch, Attacker.change_mode, Attacker.read}
#: System calls of the download that an act may precede or follow immediately.
CALLS = ["pwrite", "preadv", "ftruncate", "fdatasync", "fstat", "rename", "link"]


@contextlib.contextmanager
def acting(name: str, number: int, act: Callable[[], None], *, after: bool) -> Iterator[None]:
    """Runs ``act`` immediately before or after the ``number``-th call of ``os.name``."""
    real, calls = getattr(os, name), 0

    def call(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls != number:
            return real(*arguments, **options)
        if not after:
            act()
        result = real(*arguments, **options)
        if after:
            act()
        return result

    with mock.patch.object(os, name, call):
        yield


def download(output: Path, *, update: bool) -> None:
    """The steps of a download that resumes: checks the candidates, fetches the rest, syncs, renames."""
    with closing((UpdatePartFile if update else PartFile)(output, MANIFEST)) as part:
        missing = {*range(SEGMENTS)} - {index for index in part.candidates() if part.holds(index)}
        for index in sorted(missing, key=lambda index: index * 5 % SEGMENTS):
            part.write(index, segment_of(DATA, index))
        while part.copy_next():
            pass
        part.sync()
        part.publish(replace=update, sync=True)


#: Nothing tells of a write with an old descriptor that falls into a change that the download itself makes.
MOMENTS = st.sampled_from(
    [
        (act, name)
        for act in ACTS
        for name in CALLS
        if act != Attacker.overwrite_with_an_old_descriptor or name in ("preadv", "rename", "link")
    ]
)


@given(MOMENTS, st.integers(1, 14), st.booleans(), st.integers(0, 12), st.booleans())
def test_a_download_without_an_error_has_the_right_content(
    moment: tuple[Callable[[Attacker], None], str], number: int, after: bool, present: int, update: bool
) -> None:
    act, name = moment
    folder = Path(tempfile.mkdtemp())
    try:
        output = folder / "film.mp4"
        if update:
            output.write_bytes(content(5 * 4096, seed=2) + DATA[5 * 4096 :])
        with closing(Attacker(output)) as attacker:
            os.pwrite(attacker.fd, DATA[: present * 4096], 0)

            def attack() -> None:
                with contextlib.suppress(FileNotFoundError, FileExistsError):
                    act(attacker)

            error: MsdError | None = None
            try:
                with acting(name, number, attack, after=after):
                    download(output, update=update)
            except MsdError as raised:
                error = raised
            if error is None:
                # After the rename the part file is gone, and an act on a new one is harmless.
                assert output.read_bytes() == DATA
            else:
                assert act not in HARMLESS, error
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("act", [Attacker.remove, Attacker.exchange, Attacker.truncate], ids=lambda act: act.__name__)
def test_a_part_file_that_is_lost_is_noticed_at_the_next_segment(
    tmp_path: Path, act: Callable[[Attacker], None]
) -> None:
    with closing(Attacker(tmp_path / "film.mp4")) as attacker, closing(PartFile(attacker.output, MANIFEST)) as part:
        part.write(0, segment_of(DATA, 0))
        act(attacker)
        with pytest.raises(
            DiskError, match=r"was (removed or replaced|truncated or extended) .*: run the command again"
        ):
            part.write(1, segment_of(DATA, 1))
