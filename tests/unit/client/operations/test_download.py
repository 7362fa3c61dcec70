"""How the Python API is called, the name of the output where the user gives none, and what an interrupt says. The
download itself: tests/integration.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msd.client.operations import download
from msd.client.operations.download import safe_name
from msd.client.storage.part_file import PartFile
from msd.wire.config.settings import Config, locate_servers
from msd.wire.errors import Interrupted
from msd.wire.protocol.segments import Manifest, digest, segment_count, span


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Star.mp4", "Star.mp4"),
        ("films/2020/Star.mp4", "Star.mp4"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        (".hidden", ".hidden"),
        ("ä b (1).mp4", "ä b (1).mp4"),
        ("C:\\Windows\\win.ini", "C:_Windows_win.ini"),
        ("a\x00b\x1b[31m\x7f\n", "a_b_[31m__"),
        ("", "download"),
        (".", "download"),
        ("..", "download"),
        ("films/..", "download"),
        ("films/", "download"),
    ],
)
def test_the_base_name_fit_to_be_a_file_here(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(st.text(max_size=50))
def test_no_name_leads_anywhere_else(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert Path(safe).name == safe
    assert os.path.normpath(safe) == safe
    assert not any(ord(character) < 32 or character in "/\\\x7f" for character in safe)


FILM = bytes(range(245)) * 10


def interrupt(*_: object, **__: object) -> None:
    raise Interrupted("interrupted: run the same command again to go on", signal.SIGINT)


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a download of ``FILM`` says that is interrupted when so many bytes are verified."""
    spans = (span(len(FILM), index) for index in range(segment_count(len(FILM))))
    manifest = Manifest.build("film", len(FILM), b"".join(digest(FILM[at : at + length]) for at, length in spans))
    monkeypatch.setattr(download, "ConnectionPool", lambda *_, **__: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(download, "find_manifest", lambda *_, **__: (manifest, b""))

    def run(verified: int, *, within: Any = interrupt, update: bool = False) -> str:
        transfer = SimpleNamespace(verified=verified, run=within)
        monkeypatch.setattr(download, "Transfer", lambda *_, **__: transfer)
        with pytest.raises(Interrupted) as raised:
            download.download(
                locate_servers(Config(), host=None, ports=None, server5=None), output=tmp_path / "copy", update=update
            )
        assert raised.value.exit_code == 130
        return str(raised.value).replace(f"{tmp_path}/", "")

    return run


def test_an_interrupted_resume_does_not_say_that_only_what_it_has_looked_at_is_kept(
    tmp_path: Path, interrupted: Any
) -> None:
    (tmp_path / "copy.part").write_bytes(FILM)
    told = (
        "interrupted: 21 B of 2.4 KiB verified so far; what copy.part holds stays, run the same command again to go on"
    )
    assert interrupted(21) == told
    assert (tmp_path / "copy.part").read_bytes() == FILM


def test_an_interrupted_update_names_no_part_file_as_long_as_it_needs_none(tmp_path: Path, interrupted: Any) -> None:
    (tmp_path / "copy").write_bytes(FILM)
    told = "interrupted: 21 B of 2.4 KiB verified so far; run the same command again to go on"
    assert interrupted(21, update=True) == told
    assert not (tmp_path / "copy.part").exists()
    (tmp_path / "copy").write_bytes(FILM[1:])
    assert "what copy.part holds stays" in interrupted(21, update=True)
    assert (tmp_path / "copy.part").exists()


def test_an_interrupt_once_the_file_has_its_name_names_no_part_file(
    tmp_path: Path, interrupted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = PartFile.publish

    def late(part: PartFile, **options: bool) -> None:
        publish(part, **options)
        interrupt()

    monkeypatch.setattr(PartFile, "publish", late)
    assert ".part" not in interrupted(len(FILM), within=lambda: None)
    assert (tmp_path / "copy").exists()
