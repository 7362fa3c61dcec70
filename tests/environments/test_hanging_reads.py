"""Shared files on a file system whose server does not answer any more (FINDINGS: M5): real processes, a FUSE mount."""

from __future__ import annotations

import random
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from msd.wire.errors import DiskError, SourceError
from tests.environments.recipes import mounted_fuse
from tests.processes import MIB, System, files_equal, make_file

pytestmark = pytest.mark.usefixtures("runtime_folder")


def test_a_file_whose_reads_hang_holds_up_only_itself(tmp_path: Path) -> None:
    """
    1. A file on the disk and one on a mount are served.
    2. The file system of the mount stops answering reads. A download of its file is told which mount it is, and ends.
    3. Meanwhile the other file is downloaded, and all workers send their heartbeats.
    4. The servers end when they are told to, although reads still hang.
    """
    fine = make_file(tmp_path / "fine", 8 * MIB, random.Random(1))
    with ExitStack() as stack:
        mount = stack.enter_context(mounted_fuse(tmp_path / "mount"))
        held = make_file(tmp_path / "mount.content" / "held", 3 * MIB, random.Random(2))
        system = stack.enter_context(System(fine, str(mount))).wait_until_ready()
        with system.download("mount/held", "-o", "before", cwd=tmp_path) as client:
            client.wait_until_done()
        assert files_equal(held, tmp_path / "before")
        (held.parent / ".silent").touch()
        with system.download("mount/held", "-o", "after", cwd=tmp_path) as client:
            with system.download("fine", "-o", "copy", cwd=tmp_path) as other:
                other.wait_until_done()
            assert files_equal(fine, tmp_path / "copy")
            assert client.process.poll() is None
            assert client.wait() in (SourceError.exit_code, DiskError.exit_code)
            assert f"{mount} has not answered for 10 seconds" in client.events[-1]["message"]
        assert system.states() == ["awake"] * 4
        system.signal(signal.SIGTERM)
        assert system.wait() == 143
