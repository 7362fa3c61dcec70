"""What ``msd keys`` prints: names, roles and public keys, and no secret."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from msd.broker.cli import key_commands
from msd.wire.errors import UsageError
from msd.wire.security.keys import SERVER, KeyFolder


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "config.toml"
    file.write_text("[broker]\nkeys = 'keys'\n")
    return str(file)


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def test_from_the_first_key_to_the_last_no_secret_is_printed(
    config: str, folder: KeyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    key_commands.init(config)
    key_commands.new("laptop", config)
    key_commands.admit(str(folder.path / "laptop.pub"), "client", config)
    key_commands.list_keys(config)
    key_commands.revoke("laptop", config)
    printed = "".join(capsys.readouterr())
    for name in (SERVER, "laptop"):
        pair = folder.load(name)
        assert pair is not None
        assert pair.public.hex() in printed
        assert pair.secret.hex() not in printed
    assert "laptop is admitted as client\n" in printed
    assert "laptop is not admitted any more\n" in printed
    assert folder.admitted() == []


def test_a_list_tells_own_keys_and_admitted_ones_apart(
    config: str, folder: KeyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    own = folder.init()
    laptop, _ = folder.new("laptop")
    key_commands.list_keys(config)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["own", "server", own.public.hex()],
        ["own", "laptop", laptop.public.hex()],
    ]


def test_what_new_prints_can_be_admitted_from_standard_input(
    config: str, folder: KeyFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key_commands.new("laptop", config)
    monkeypatch.setattr("sys.stdin", io.StringIO(capsys.readouterr().out.splitlines()[0]))
    key_commands.admit("-", "operator", config)
    assert [(admitted.name, admitted.role) for admitted in folder.admitted()] == [("laptop", "operator")]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_wrong_use(config: str, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "laptop.pub"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"laptop\.pub: cannot be read: "):
        key_commands.admit(str(file), "client", config)
