"""What the content of a share is read from."""

from __future__ import annotations

from pathlib import Path

from msd.workers.source.local_files import LocalFiles
from msd.workers.source.source_of import source_of
from tests.unit.shares import share_of


def test_paths_are_read_from_the_file_system(tmp_path: Path) -> None:
    assert isinstance(source_of(share_of(tmp_path)), LocalFiles)
