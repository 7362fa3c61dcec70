"""How the difference between a local file or folder and the shared one is reported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from msd.client.cli import verify_command
from msd.client.cli.verify_command import run
from msd.client.operations.verify import Comparison
from msd.client.operations.verify_folder import Difference, FolderComparison
from msd.wire.config.cli_flags import ServerFlags
from msd.wire.errors import NotFoundError, SourceError
from tests.unit.client.operations.test_verify import ABC

SAME = Comparison("film.bin", size=9, local_size=9, segments=9, differing=(), compared=9, equal=9)
DIFFERENT = Comparison("film.bin", size=9, local_size=9, segments=9, differing=(1, 3, 5), compared=9, equal=6)


class ClosedPipe:
    """A pipe whose reader has closed it."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def show(path: str, name: str | None = None, *, sha256: str | None = None, as_json: bool = False) -> None:
    run(ServerFlags(), path, name, sha256=sha256, timeout=5.0, as_json=as_json)


def use(monkeypatch: pytest.MonkeyPatch, function: str, result: object) -> None:
    def compare(*_: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(verify_command, function, compare)


def test_the_command_that_repairs_a_file_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "verify", Comparison("my film.bin", 9, 9, 9, differing=(1, 3, 5), compared=9, equal=6))
    with pytest.raises(SourceError, match=r"msd download 'my film\.bin' --update -o 'my copy\.bin'$"):
        show("my copy.bin")


def test_a_difference_is_an_error_even_if_the_pipe_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "verify", DIFFERENT)
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    message = (
        r"^copy\.bin differs from the shared film\.bin: repair it with msd download film\.bin --update -o copy\.bin$"
    )
    with pytest.raises(SourceError, match=message):
        show("copy.bin")


def test_a_file_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use(monkeypatch, "verify", SAME)
    show("copy.bin", as_json=True)
    sizes = {"size": 9, "local_size": 9, "segments": 9}
    same = {"path": "copy.bin", "name": "film.bin", "matches": True, **sizes, "differing": []}
    assert json.loads(capsys.readouterr().out) == same
    use(monkeypatch, "verify", DIFFERENT)
    with pytest.raises(SourceError):
        show("copy.bin", as_json=True)
    assert json.loads(capsys.readouterr().out) == {**same, "matches": False, "differing": [1, 3, 5]}


def test_a_checksum_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    path = str(tmp_path / "abc")
    show(path, sha256=ABC, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"path": path, "sha256": ABC, "matches": True}


def test_a_name_that_is_not_shared_gets_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "verify", NotFoundError("'fil.bin' is not shared", name="fil.bin", names=["film.bin"]))
    with pytest.raises(NotFoundError, match=r"; did you mean 'film\.bin'\?$"):
        show("copy.bin", "fil.bin")


# Folders.


def folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, differences: dict[str, Difference], *, name: str = "photos/"
) -> str:
    """Makes a folder, and the result of its comparison with a shared folder of 1,234 files."""
    path = tmp_path / "out" / "photos"
    path.mkdir(parents=True)
    missing = sum(difference is not Difference.EXTRA for difference in differences.values())
    comparison = FolderComparison(path, name, 1234, 1234 - missing, differences)
    use(monkeypatch, "verify_folder", comparison)
    return str(path)


def test_a_folder_that_matches_may_have_extra_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder(monkeypatch, tmp_path, {"mine": Difference.EXTRA})
    show(path)
    assert capsys.readouterr().out == f"extra       mine\n{path} matches photos/ (1,234 files verified, 1 extra)\n"


def test_the_differences_of_a_folder_are_listed_and_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = (Difference.DIFFERS, Difference.MISSING, Difference.UNREADABLE)
    differences = {f"a/{number:02}\x1b": kinds[number % 3] for number in range(24)}
    path = folder(monkeypatch, tmp_path, {**differences, "x": Difference.EXTRA})
    with pytest.raises(SourceError) as caught:
        show(path)
    assert str(caught.value) == (
        f"{path} differs from photos/: 1,210 of 1,234 files match, 8 differ, 8 missing, 8 unreadable, 1 extra:"
        f" repair it with msd download photos/ --update -o {tmp_path / 'out'}"
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [r"differs     a/00\x1b", r"missing     a/01\x1b", r"unreadable  a/02\x1b"]
    assert (len(lines), lines[-1]) == (21, "5 more")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("", ": repair it with msd download . --update -o {path}"),
        ("out/photos/", ": repair it with msd download out/photos/ --update -o {path.parent.parent}"),
        ("other/", ""),
    ],
)
def test_the_repair_is_named_if_a_download_would_put_the_folder_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, hint: str
) -> None:
    path = folder(monkeypatch, tmp_path, {"a": Difference.MISSING}, name=name)
    with pytest.raises(SourceError) as caught:
        show(path)
    shared = name or "what is shared"
    assert str(caught.value) == (
        f"{path} differs from {shared}: 1,233 of 1,234 files match, 1 missing{hint.format(path=Path(path))}"
    )


def test_the_folder_above_the_one_that_was_meant_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    comparison = FolderComparison(tmp_path, "photos/", 1, 0, {"a": Difference.MISSING})
    use(monkeypatch, "verify_folder", comparison)
    with pytest.raises(SourceError, match=rf": did you mean msd verify {tmp_path}/photos photos/\?$"):
        show(str(tmp_path), "photos/")


def test_a_folder_as_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder(monkeypatch, tmp_path, {"a": Difference.MISSING, "b": Difference.DIFFERS, "c": Difference.EXTRA})
    with pytest.raises(SourceError):
        show(path, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "path": path,
        "name": "photos/",
        "matches": False,
        "files": 1234,
        "matching": 1232,
        "differs": ["b"],
        "missing": ["a"],
        "unreadable": [],
        "extra": ["c"],
    }
