"""The names and paths of shared files, and the text about what is left out."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from msd.wire.protocol.child_messages import SHARE_FILE, ShareSettings
from msd.wire.sharing.shared_paths import write_share
from msd.workers.source.share import LeftOut, Share, left_out_text
from tests.unit.shares import share_of


def test_the_children_read_what_the_broker_wrote(tmp_path: Path) -> None:
    path = Path(os.fsdecode(b"/not utf-8 \xe9"))
    stores, secrets = {"c": "s3://films/new/"}, {"secret_access_key": "key"}
    settings = ShareSettings(
        {"a": os.fsencode(path), "b": b"/b"},
        hidden=True,
        follow_links=True,
        excludes=("*.tmp",),
        stores=stores,
        store_settings=secrets,
        cache=7,
    )
    write_share(tmp_path, settings)
    assert Share.read(tmp_path) == Share({"a": path, "b": Path("/b")}, True, True, ("*.tmp",), 7, stores, secrets)
    assert (tmp_path / SHARE_FILE).stat().st_mode & 0o777 == 0o600


def test_names_in_the_only_folder_are_relative_to_it(tmp_path: Path) -> None:
    assert share_of(tmp_path).locate("sub/x") == f"{tmp_path}/sub/x"


def test_the_only_file_has_any_name(tmp_path: Path) -> None:
    assert share_of(tmp_path / "film").locate("film") == f"{tmp_path}/film"


def test_among_several_paths_the_first_part_of_a_name_is_the_path(tmp_path: Path) -> None:
    share = Share({"films": tmp_path / "films", "x": Path("/elsewhere/x")})
    assert share.locate("films/sub/x") == f"{tmp_path}/films/sub/x"
    assert share.locate("x") == "/elsewhere/x"
    for name in ("y", "sub/x", ""):
        with pytest.raises(PermissionError):
            share.locate(name)


def test_a_share_is_described_by_its_first_path() -> None:
    assert str(share_of(Path("/a"))) == "/a"
    assert str(Share({"a": Path("/a"), "b": Path("/b"), "c": Path("/c")})) == "/a and 2 more"


def test_what_is_left_out_is_counted_by_kind_with_the_flags_that_share_it() -> None:
    assert left_out_text(Counter()) == ""
    counts = Counter({LeftOut.LEADS_OUT: 3, LeftOut.HIDDEN: 2})
    assert left_out_text(counts) == "2 hidden, 3 links that lead out (--hidden, --follow-links)"
    assert left_out_text(Counter({LeftOut.LEADS_OUT: 1})) == "1 link that leads out (--follow-links)"
    assert left_out_text(Counter({LeftOut.SPECIAL: 1, LeftOut.EXCLUDED: 1200})) == (
        "1,200 excluded, 1 pipe, socket or device"
    )


def test_a_name_is_split_into_that_of_its_root_and_the_rest() -> None:
    share = Share({"disk": Path("/d")}, stores={"films": "s3://films", "b": "s3://c/b"})
    assert [share.split(name) for name in ("films/new/a", "disk/x", "b")] == [
        ("films", "new/a"),
        ("disk", "x"),
        ("b", "b"),
    ]
    assert [share.is_in_store(name) for name in ("films/new/a", "disk/x", "b")] == [True, False, True]
    assert Share({}, stores={"": "s3://films"}).split("new/a") == ("", "new/a")
    assert str(Share({}, stores={"": "s3://films"})) == "s3://films"
