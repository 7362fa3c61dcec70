"""The indexer process: its lines, its requests and its end."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from msd.wire.errors import MsdError, UsageError
from msd.wire.protocol.child_messages import Indexed
from msd.wire.sharing.indexer_process import IndexerProcess
from tests.unit.shares import write_share_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A broker's folder with an empty catalogue folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "broker"
    (folder / "catalogue").mkdir(parents=True)
    return folder


#: Runs ``python -m msd.workers`` with an indexer that rescans only on request.
RESCAN_ON_REQUEST = """
import sys
from msd.workers.indexing import rescan_policy
rescan_policy.SCAN_INTERVAL_S, rescan_policy.CHECK_INTERVAL_S = 3600.0, 0.05
from msd.workers.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_indexer_reports_each_edition_and_rescans_on_request(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        assert command[1:4] == ["-P", "-m", "msd.workers"]
        return popen([sys.executable, "-c", RESCAN_ON_REQUEST, *command[4:]], **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    (tmp_path / "numbers").write_bytes(bytes(range(245)))
    write_share_of(tmp_path / "numbers", folder / "catalogue")
    with closing(IndexerProcess(folder)) as indexer:
        for number in (1, 2):
            while not (indexed := [line for line in indexer.read_lines() if isinstance(line, Indexed)]):
                pass
            assert [line.edition for line in indexed] == [number]
            (tmp_path / "other").write_bytes(bytes(number))
            (tmp_path / "other").replace(tmp_path / "numbers")
            indexer.request_rescan(None)


def test_reading_an_indexer_that_has_exited_raises_its_reason(tmp_path: Path, folder: Path) -> None:
    write_share_of(tmp_path / "none", folder / "catalogue")
    with closing(IndexerProcess(folder)) as indexer, pytest.raises(MsdError) as caught:
        indexer.read_lines()
    assert str(caught.value).startswith(f"{tmp_path / 'none'}: no such file or folder to share")
    assert caught.value.exit_code == UsageError.exit_code
