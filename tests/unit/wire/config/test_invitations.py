"""Invitations: which key they admit, for how long, and which link ``msd serve`` shows."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from msd.wire.config import invitations
from msd.wire.config.invitations import (
    BY_SERVE,
    DEFAULT_DURATION_S,
    EXPIRED_KEPT_S,
    MIN_REMAINING_S,
    Invitation,
    address_for_others,
    invite,
    offered_name,
    standing_invitation,
)
from msd.wire.config.settings import Config
from msd.wire.errors import NotAllowedError
from msd.wire.net.endpoints import Endpoint
from msd.wire.security.keys import KeyFolder, Role

SERVER5, NOW = Endpoint("192.0.2.7", 39223), 1_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    """A folder with a servers' key."""
    folder = KeyFolder(tmp_path / "keys")
    folder.init()
    return folder


def standing(folder: KeyFolder, now: float = NOW, name: str = "film") -> Invitation:
    return standing_invitation(folder, SERVER5, name, now=now)


def test_an_invitation_admits_the_key_in_its_link(folder: KeyFolder) -> None:
    invitation = invite(folder, SERVER5, "photos/", expires=NOW + 60, now=NOW)
    (admitted,) = folder.admitted_keys()
    assert invitation.link.key_pair is not None
    assert (admitted.name, admitted.key) == (invitation.key_name, invitation.link.key_pair.public)
    assert (admitted.role, admitted.scope, admitted.expires) == (Role.CLIENT, "photos/", NOW + 60)
    assert invitation.link.text not in repr(invitation), "the link is a secret"


def test_two_invitations_have_different_keys(folder: KeyFolder) -> None:
    first, second = (invite(folder, SERVER5, "film", expires=NOW + 60, now=NOW) for _ in range(2))
    assert first.link.seed != second.link.seed
    assert len(folder.admitted_keys()) == 2


@pytest.mark.parametrize(
    ("name", "expires", "terms"),
    [
        ("film", math.inf, "the holder of this link may download the file film until it is revoked"),
        ("photos/", math.inf, "the holder of this link may download the folder photos/ until it is revoked"),
        ("", NOW, "the holder of this link may download everything until 1970-01-1"),
    ],
)
def test_the_terms_name_what_and_until_when(folder: KeyFolder, name: str, expires: float, terms: str) -> None:
    invitation = invite(folder, SERVER5, name, expires=expires, now=NOW)
    assert invitation.terms.startswith(terms)
    assert invitation.end == f"to end that: msd keys revoke {invitation.key_name}"


def test_restarts_show_the_same_link_until_half_of_its_time_has_passed(folder: KeyFolder) -> None:
    first = standing(folder)
    assert first.expires == NOW + DEFAULT_DURATION_S
    assert standing(folder, NOW + MIN_REMAINING_S) == first
    assert len(folder.admitted_keys()) == 1
    second = standing(folder, NOW + MIN_REMAINING_S + 1)
    assert second.link != first.link
    for day in range(30):
        standing(folder, NOW + MIN_REMAINING_S + day * 86_400)
    kept = EXPIRED_KEPT_S / 86_400 + DEFAULT_DURATION_S / 86_400
    assert len(folder.admitted_keys()) <= kept + 2, "restarts must not admit keys without end"


def test_a_link_that_was_revoked_or_is_not_of_msd_serve_is_not_shown(folder: KeyFolder) -> None:
    first = standing(folder)
    folder.revoke(first.key_name)
    invite(folder, SERVER5, "film", expires=NOW + 86_400, now=NOW)
    # Another key has the place of one that msd serve has made.
    folder.admit(f"{BY_SERVE}0 {bytes(32).hex()}", Role.CLIENT, expires=NOW + 86_400, scope="film")
    second = standing(folder)
    assert second.link.seed not in (None, first.link.seed)
    assert standing(folder, name="other").link.seed != second.link.seed
    assert standing(folder) == second


def test_expired_invitations_are_removed_a_week_later(folder: KeyFolder) -> None:
    invitation = invite(folder, SERVER5, "film", expires=NOW, now=NOW)
    laptop = KeyFolder(folder.path.parent / "laptop").new("laptop")[1].read_text()
    folder.admit(laptop, Role.CLIENT, expires=NOW)
    invite(folder, SERVER5, "film", expires=math.inf, now=NOW + EXPIRED_KEPT_S)
    assert invitation.key_name in [key.name for key in folder.admitted_keys()]
    invite(folder, SERVER5, "film", expires=math.inf, now=NOW + EXPIRED_KEPT_S + 1)
    names = [key.name for key in folder.admitted_keys()]
    assert invitation.key_name not in names
    assert len(names) == 3
    assert "laptop" in names, "only invitations are removed"


def test_an_expired_invitation_may_be_removed_by_another_one_at_the_same_time(
    folder: KeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    invite(folder, SERVER5, "film", expires=NOW, now=NOW)
    keys = folder.admitted_keys()
    folder.revoke(keys[0].name)
    monkeypatch.setattr(folder, "admitted_keys", lambda: keys)
    invite(folder, SERVER5, "film", expires=math.inf, now=NOW + EXPIRED_KEPT_S + 1)


def test_without_the_servers_key_the_error_says_where_to_run_the_command(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    with pytest.raises(NotAllowedError, match="on the machine of the servers"):
        invite(folder, SERVER5, "film", expires=NOW, now=NOW)
    with pytest.raises(NotAllowedError, match="on the machine of the servers"):
        standing(folder)


def test_a_link_is_offered_for_the_only_file_or_for_everything(tmp_path: Path) -> None:
    film, folder, odd = tmp_path / "film", tmp_path / "photos", tmp_path / "two\nlines"
    for file in (film, odd):
        file.touch()
    folder.mkdir()
    exposed = Config(host="192.0.2.7", paths=(film,))
    assert offered_name(exposed) == "film"
    for paths in ((folder,), (film, folder), (odd,), ()):
        assert offered_name(Config(host="192.0.2.7", paths=paths)) == ""


def test_no_link_is_offered_without_keys_or_on_loopback(tmp_path: Path) -> None:
    for config in (
        Config(host="192.0.2.7", paths=(tmp_path,), security="none"),
        Config(paths=(tmp_path,), security="curve"),
    ):
        assert offered_name(config) is None


def test_the_address_is_one_that_others_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invitations, "hosts_for_others", lambda host: ["192.0.2.99", "2001:db8::1"])
    assert address_for_others(Endpoint("*", 5)) == Endpoint("192.0.2.99", 5)
    assert address_for_others(Endpoint("films.example.org", 5)) == Endpoint("films.example.org", 5)
    monkeypatch.setattr(invitations, "hosts_for_others", lambda host: [])
    assert address_for_others(Endpoint("*", 5)) == Endpoint("*", 5)
