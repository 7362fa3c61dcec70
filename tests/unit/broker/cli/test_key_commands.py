"""``msd keys`` prints names, roles and public keys, but no secret keys."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest

from msd.broker.cli import key_commands
from msd.wire.errors import UsageError
from msd.wire.security.keys import SERVER, KeyFolder, Role
from msd.wire.support.units import format_date


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "config.toml"
    file.write_text("[broker]\nkeys = 'keys'\n")
    return str(file)


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def test_no_command_prints_a_secret_key(config: str, folder: KeyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    key_commands.init(config)
    key_commands.new("laptop", config)
    key_commands.admit(str(folder.path / "laptop.pub"), "client", config=config)
    key_commands.list_keys(config)
    key_commands.revoke("laptop", config)
    printed = "".join(capsys.readouterr())
    for name in (SERVER, "laptop"):
        pair = folder.load(name)
        assert pair is not None
        assert pair.public.hex() in printed
        assert pair.secret.hex() not in printed
    assert "laptop is admitted as client\n" in printed
    assert "laptop is revoked\n" in printed
    assert folder.admitted_keys() == []


def test_the_list_distinguishes_own_and_admitted_keys(
    config: str, folder: KeyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    own = folder.init()
    laptop, public = folder.new("laptop")
    folder.admit(public.read_text(), Role.CLIENT)
    key_commands.list_keys(config)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["own", "server", own.public.hex()],
        ["own", "laptop", laptop.public.hex()],
        ["client", "laptop", laptop.public.hex()],
    ]


def test_the_output_of_new_can_be_admitted_from_standard_input(
    config: str, folder: KeyFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key_commands.new("laptop", config)
    monkeypatch.setattr("sys.stdin", io.StringIO(capsys.readouterr().out.splitlines()[0]))
    key_commands.admit("-", "operator", config=config)
    assert [(admitted.name, admitted.role) for admitted in folder.admitted_keys()] == [("laptop", "operator")]


def test_a_key_is_admitted_under_the_name_of_the_flag(config: str, folder: KeyFolder) -> None:
    _, public = folder.new("laptop")
    key_commands.admit(str(public), "client", name="ann", config=config)
    assert [admitted.name for admitted in folder.admitted_keys()] == ["ann"]


def test_a_key_is_admitted_for_a_time(
    config: str, folder: KeyFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    attic, public = folder.new("attic")
    key_commands.admit(str(public), "worker", duration="12h", config=config)
    until = format_date(now + 12 * 3600)
    assert capsys.readouterr().out == f"attic is admitted as worker until {until}\n"
    assert [admitted.expires for admitted in folder.admitted_keys()] == [now + 12 * 3600]
    for passed, verb in ((0.0, "expires"), (12 * 3600 - 1, "expires"), (12 * 3600, "expired")):
        monkeypatch.setattr(time, "time", lambda passed=passed: now + passed)
        key_commands.list_keys(config)
        line = f"worker    attic                {attic.public.hex()}  {verb} {until}"
        assert capsys.readouterr().out.splitlines()[-1] == line
    # Admitted again without a time, it does not expire.
    key_commands.admit(str(public), "worker", config=config)
    key_commands.list_keys(config)
    assert capsys.readouterr().out.splitlines()[-1] == f"worker    attic                {attic.public.hex()}"


def test_the_list_shows_for_what_an_invitation_is(
    config: str, folder: KeyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    _, public = folder.new("invite-1")
    folder.admit(public.read_text(), Role.CLIENT, expires=0.0, scope="two words/\x1b")
    key_commands.list_keys(config)
    line = capsys.readouterr().out.splitlines()[-1]
    assert "\x1b" not in line
    assert line.partition("  for two words/")[2].endswith(f" alone, expired {format_date(0.0)}")


@pytest.mark.parametrize("text", ["", "12", "soon", "0h", "1000000w"])
def test_a_key_is_not_admitted_for_an_invalid_time(config: str, folder: KeyFolder, text: str) -> None:
    _, public = folder.new("attic")
    with pytest.raises(UsageError, match=f"^--for '{text}': must be a time such as 90m, 12h or 7d$"):
        key_commands.admit(str(public), "worker", duration=text, config=config)
    assert folder.admitted_keys() == []


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_an_unreadable_file_is_a_usage_error(config: str, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "laptop.pub"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"laptop\.pub: cannot be read: "):
        key_commands.admit(str(file), "client", config=config)
