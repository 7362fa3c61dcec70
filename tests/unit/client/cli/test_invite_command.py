"""``msd invite``: the link, and the key that it admits."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from msd.client.cli import invite_command
from msd.client.cli.invite_command import run
from msd.wire.config import invitations
from msd.wire.config.links import Link
from msd.wire.config.servers import Servers
from msd.wire.config.settings import Config
from msd.wire.errors import NoAnswerError, NotAllowedError, NotFoundError, UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.security.keys import KeyFolder, Role


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Servers that other machines can reach, with keys."""
    KeyFolder(tmp_path / "keys").init()
    return Config(host="192.0.2.7", security="curve", keys=tmp_path / "keys")


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The hosts of server 5 and the names about which it was asked. It shares everything but ``missing``."""
    asked = []

    def shared_name(servers: Servers, name: str, timeout: float) -> str:
        asked.append((servers.status.host, name))
        if name == "missing":
            raise NotFoundError("'missing' is not shared")
        return "Folder/" if name == "Folder" else name

    monkeypatch.setattr(invite_command, "shared_name", shared_name)
    return asked


def invited(
    config: Config, capsys: pytest.CaptureFixture[str], name: str = "photos/", time_text: str = "24h"
) -> tuple[Link, str]:
    """The link, and what is said about it."""
    run(config, name, time_text, None)
    printed = capsys.readouterr()
    return Link.parse(printed.out.strip()), printed.err


def test_an_invitation_admits_a_key_for_one_name_and_a_time(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    link, said = invited(config, capsys)
    (admitted,) = config.key_folder.admitted_keys()
    server = config.load_server_keys()
    assert server is not None
    assert (link.server5, link.name, link.server_key) == (Endpoint("192.0.2.7", 39223), "photos/", server.public)
    assert link.key_pair is not None
    assert (admitted.key, admitted.role, admitted.scope) == (link.key_pair.public, Role.CLIENT, "photos/")
    assert admitted.expires == pytest.approx(time.time() + 86400, abs=60)
    assert f"msd keys revoke {admitted.name}" in said
    assert link.text not in said, "the link is a secret, which belongs on standard output alone"


def test_an_invitation_may_be_unlimited(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = invited(config, capsys, "a film with spaces", "unlimited")
    (admitted,) = config.key_folder.admitted_keys()
    assert (admitted.expires, admitted.scope) == (math.inf, "a film with spaces")
    assert "may download the file a film with spaces until it is revoked" in said
    assert "may download the folder photos/ until" in invited(config, capsys)[1]
    assert "may download everything until" in invited(config, capsys, ".")[1]


def test_the_address_is_one_that_others_can_use(
    config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invitations, "hosts_for_others", lambda host: ["192.0.2.99"])
    wildcard = Config(host="*", security="curve", keys=config.keys)
    assert invited(wildcard, capsys)[0].server5 == Endpoint("192.0.2.99", 39223)
    run(wildcard, "film", "1h", "films.example.org:80")
    assert Link.parse(capsys.readouterr().out.strip()).server5 == Endpoint("films.example.org", 80)


def test_servers_without_keys_have_a_plain_link(capsys: pytest.CaptureFixture[str]) -> None:
    link, said = invited(Config(), capsys)
    assert link == Link(Endpoint("127.0.0.1", 39223), "photos/")
    assert "this link is for this machine only" in said
    assert "give it here, too" in said


@pytest.mark.parametrize("time_text", ["", "0h", "soon", "-1d"])
def test_an_invalid_time_is_refused_and_admits_nothing(config: Config, time_text: str) -> None:
    with pytest.raises(UsageError, match=f"^--for {time_text}: must be a time"):
        run(config, "film", time_text, None)
    assert config.key_folder.admitted_keys() == []


def test_without_the_servers_key_the_error_says_where_to_run_the_command(tmp_path: Path) -> None:
    with pytest.raises(NotAllowedError, match="on the machine of the servers"):
        run(Config(host="192.0.2.7", security="curve", keys=tmp_path), "film", "1h", None)


def test_the_link_has_the_name_under_which_a_folder_is_shared(
    config: Config, capsys: pytest.CaptureFixture[str], asked: list[tuple[str, str]]
) -> None:
    link, said = invited(config, capsys, "./Folder")
    assert link.name == "Folder/"
    assert [admitted.scope for admitted in config.key_folder.admitted_keys()] == ["Folder/"]
    assert "may download the folder Folder/" in said
    invited(config, capsys, ".")
    assert asked == [("192.0.2.7", "Folder")], "everything is shared in any case"


def test_a_name_that_is_not_shared_admits_no_key(config: Config) -> None:
    with pytest.raises(NotFoundError):
        run(config, "missing", "24h", None)
    assert config.key_folder.admitted_keys() == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Folder", "the link is for Folder as a file: the name of a folder ends with /"),
        ("Folder/", "the link is for Folder/ as a folder"),
    ],
)
def test_servers_that_do_not_answer_are_no_reason_to_make_no_link(
    config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    def no_answer(*arguments: object) -> str:
        raise NoAnswerError("no answer")

    monkeypatch.setattr(invite_command, "shared_name", no_answer)
    link, note = invited(config, capsys, name)
    assert link.name == name
    assert note.rstrip().endswith(said)
    local = Config(security="curve", keys=config.keys)
    before = config.key_folder.admitted_keys()
    with pytest.raises(NoAnswerError, match="give its address with -a HOST or --server5 HOST"):
        run(local, name, "24h", None)
    assert config.key_folder.admitted_keys() == before
    run(local, name, "24h", "films.example.org")
    assert Link.parse(capsys.readouterr().out.strip()).server5 == Endpoint("films.example.org", 39223)
