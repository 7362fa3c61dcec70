"""Keys in their folder: made, admitted and revoked, never open to others, and their secrets never told."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msd.wire.config.settings import Servers
from msd.wire.errors import DiskError, MsdError, NotAllowedError, UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.security.keys import KEY_SIZE, SERVER, Credentials, KeyFolder, KeyPair, Role, credentials, parse_key

LAPTOP, OTHER = KeyPair.of(bytes(range(1, 33))), KeyPair.of(bytes(range(2, 34)))
GOOD_NAMES = ["laptop", "a", "0", "x" * 64, "ann@host.example", "A-1_b.c"]
BAD_NAMES = ["", ".", "..", "../up", "a/b", "/etc/passwd", ".hidden", "-rf", "x" * 65, "a\0b", "a\n", "ä", "a\x1b[2J"]
#: What others may do of a file or folder that they may do anything with.
OPEN = [0o710, 0o701, 0o704, 0o750, 0o770, 0o777]


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "config" / "keys")


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def line(name: str, pair: KeyPair) -> str:
    return f"{name} {pair.public.hex()}\n"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files(folder: KeyFolder) -> list[str]:
    return sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file())


def texts_of(secret: bytes) -> tuple[str, ...]:
    """How a secret could be told."""
    return secret.hex(), repr(secret)[2:-1], secret.hex().upper()


def tells(text: str, *pairs: KeyPair) -> bool:
    return any(told in text for pair in pairs for told in texts_of(pair.secret))


# A pair.


def test_a_pair_is_made_of_its_secret() -> None:
    assert KeyPair.of(LAPTOP.secret) == LAPTOP
    assert LAPTOP != OTHER
    assert len(LAPTOP.public) == len(LAPTOP.secret) == KEY_SIZE


def test_a_secret_is_never_shown_with_what_holds_it() -> None:
    shown = Credentials(LAPTOP, OTHER.public)
    for value in (LAPTOP, shown, [LAPTOP], Servers(Endpoint("127.0.0.1", 1), {}, pinned=False, credentials=shown)):
        assert not tells(f"{value} {value!r}", LAPTOP)
        assert repr(LAPTOP.public) in repr(value)


@pytest.mark.parametrize("text", [LAPTOP.public.hex(), LAPTOP.public.hex().upper()])
def test_a_key_is_read_from_its_text(text: str) -> None:
    assert parse_key(text) == LAPTOP.public


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "a" * 63, "g" * 64, "ä" * 64, "0x" + "ab" * 32])
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a key of 64 hexadecimal digits$"):
        parse_key(text)


# Making.


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077], indirect=True, ids=oct)
def test_whatever_the_umask_secrets_and_folders_are_this_users_alone(folder: KeyFolder, umask: int) -> None:
    folder.init()
    _, public = folder.new("laptop")
    folder.admit(public.read_text(), Role.CLIENT)
    assert [mode(path) for path in (folder.path, folder.admitted_path)] == [0o700] * 2
    secrets = [folder.path / "server.key", folder.path / "laptop.key", folder.admitted_path / "laptop"]
    assert [mode(path) for path in secrets] == [0o600] * 3
    assert mode(public) == 0o644 & ~umask


def test_the_servers_own_pair_is_made_once(folder: KeyFolder) -> None:
    assert folder.load(SERVER) is None
    pair = folder.init()
    assert folder.load(SERVER) == pair
    with pytest.raises(UsageError, match=r"server\.key exists: a key is made once"):
        folder.init()
    assert folder.load(SERVER) == pair
    assert files(folder) == ["server.key"]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_client_s_pair_is_made_with_a_file_to_be_carried_to_the_servers(folder: KeyFolder, name: str) -> None:
    pair, public = folder.new(name)
    assert folder.load(name) == pair
    assert public.read_text() == line(name, pair)
    assert files(folder) == sorted([f"{name}.key", f"{name}.pub"])
    assert folder.pairs() == [name]


def test_a_client_s_pair_is_made_once(folder: KeyFolder) -> None:
    pair, _ = folder.new("laptop")
    with pytest.raises(UsageError, match=r"laptop\.key exists: a key is made once"):
        folder.new("laptop")
    assert folder.load("laptop") == pair


@pytest.mark.parametrize("name", [*BAD_NAMES, SERVER])
def test_a_name_that_cannot_be_a_file_s_makes_no_pair(folder: KeyFolder, name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        folder.new(name)
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_pairs_are_named_without_the_servers_own(folder: KeyFolder) -> None:
    assert folder.pairs() == []
    folder.init()
    for name in ("b", "a"):
        folder.new(name)
    assert folder.pairs() == ["a", "b"]


# Reading.


@pytest.mark.parametrize("rights", OPEN, ids=oct)
def test_a_folder_that_is_open_to_others_is_refused(folder: KeyFolder, rights: int) -> None:
    folder.init()
    folder.path.chmod(rights)
    for act in (
        lambda: folder.load(SERVER),
        lambda: folder.new("laptop"),
        lambda: folder.admit(line("laptop", LAPTOP), Role.CLIENT),
        lambda: credentials(folder, None),
    ):
        with pytest.raises(NotAllowedError) as caught:
            act()
        assert str(caught.value) == f"{folder.path} is open to other users: chmod go= {folder.path}"
    assert files(folder) == ["server.key"]


@pytest.mark.parametrize("rights", [0o640, 0o604, 0o620, 0o602, 0o666], ids=oct)
def test_a_secret_that_is_open_to_others_is_refused(folder: KeyFolder, rights: int) -> None:
    pair = folder.init()
    path = folder.path / "server.key"
    path.chmod(rights)
    with pytest.raises(NotAllowedError, match=r"server\.key is open to other users") as caught:
        folder.load(SERVER)
    assert not tells(str(caught.value), pair)


@pytest.mark.parametrize("rights", OPEN, ids=oct)
def test_admitted_keys_that_are_open_to_others_are_refused(folder: KeyFolder, rights: int) -> None:
    folder.admit(line("laptop", LAPTOP), Role.CLIENT)
    folder.admitted_path.chmod(rights)
    for act in (folder.admitted, lambda: folder.admit(line("other", OTHER), Role.CLIENT)):
        with pytest.raises(NotAllowedError, match="admitted is open to other users"):
            act()
    assert files(folder) == ["admitted/laptop"]


def test_the_keys_of_somebody_else_are_refused(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.init()
    if os.getuid():
        monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    else:
        os.chown(folder.path, 1, -1)  # root's own are everybody's
    with pytest.raises(NotAllowedError):
        folder.load(SERVER)


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: b"",
        lambda good: good[:-2],
        lambda good: good.strip() + b"ab\n",
        lambda good: good + good,
        lambda good: b"server " + good,
        lambda good: good.replace(good[:1], b"g"),
        lambda good: bytes.fromhex(good.decode()),
        lambda good: b"\xff" + good,
    ],
    ids=["empty", "short", "long", "twice", "named", "no hex", "raw", "no text"],
)
def test_a_damaged_secret_is_refused_by_its_name_and_not_repeated(
    folder: KeyFolder, damage: Callable[[bytes], bytes]
) -> None:
    pair = folder.init()
    path = folder.path / "server.key"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises((NotAllowedError, DiskError)) as caught:
        folder.load(SERVER)
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert not tells(told, pair)
    assert pair.secret.hex()[2:20] not in told
    assert caught.value.__cause__ is None


def test_a_folder_in_a_secret_s_place_is_refused(folder: KeyFolder) -> None:
    folder.init()
    (folder.path / "laptop.key").mkdir()
    with pytest.raises(DiskError, match=r"laptop\.key: Is a directory"):
        folder.load("laptop")


def test_a_file_in_the_folder_s_place_is_refused(folder: KeyFolder) -> None:
    folder.path.parent.mkdir()
    folder.path.write_text("")
    with pytest.raises(DiskError):
        folder.init()
    with pytest.raises(DiskError):
        folder.admitted()


# ConnectionPolicy.


def test_a_link_in_a_new_secret_s_place_is_replaced_and_not_followed(folder: KeyFolder, tmp_path: Path) -> None:
    folder.new("other")
    (folder.path / "server.key").symlink_to(tmp_path / "target")
    pair = folder.init()
    assert not (folder.path / "server.key").is_symlink()
    assert not (tmp_path / "target").exists()
    assert folder.load(SERVER) == pair


def test_a_link_in_the_place_of_the_unfinished_secret_is_not_followed(folder: KeyFolder, tmp_path: Path) -> None:
    folder.new("other")
    (tmp_path / "target").write_text("precious")
    (folder.path / f".server.key.{os.getpid()}").symlink_to(tmp_path / "target")
    folder.init()
    assert (tmp_path / "target").read_text() == "precious"
    assert not (folder.path / f"{SERVER}.key").is_symlink()


def test_a_link_to_a_secret_that_is_open_to_others_is_refused(folder: KeyFolder, tmp_path: Path) -> None:
    folder.new("other")
    (tmp_path / "open").write_text(LAPTOP.secret.hex())
    (tmp_path / "open").chmod(0o644)
    (folder.path / "laptop.key").symlink_to(tmp_path / "open")
    with pytest.raises(NotAllowedError, match=r"laptop\.key is open to other users"):
        folder.load("laptop")


def test_a_link_in_an_admitted_key_s_place_is_replaced_and_revoked_itself(folder: KeyFolder, tmp_path: Path) -> None:
    folder.admit(line("other", OTHER), Role.CLIENT)
    (tmp_path / "target").write_text("precious")
    place = folder.admitted_path / "laptop"
    place.symlink_to(tmp_path / "target")
    folder.admit(line("laptop", LAPTOP), Role.CLIENT)
    assert not place.is_symlink()
    place.unlink()
    place.symlink_to(tmp_path / "target")
    folder.revoke("laptop")
    assert (tmp_path / "target").read_text() == "precious"
    assert [admitted.name for admitted in folder.admitted()] == ["other"]


def test_a_link_to_an_open_folder_of_admitted_keys_is_refused(folder: KeyFolder, tmp_path: Path) -> None:
    folder.init()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    folder.admitted_path.symlink_to(tmp_path / "open")
    with pytest.raises(NotAllowedError, match="is open to other users"):
        folder.admitted()


# Admitting and revoking.


def test_nobody_is_admitted_at_first(folder: KeyFolder) -> None:
    assert folder.admitted() == []


@pytest.mark.parametrize("role", list(Role))
def test_a_key_is_admitted_in_its_role(folder: KeyFolder, role: Role) -> None:
    pair, public = folder.new("laptop")
    admitted = folder.admit(public.read_text(), role)
    assert (admitted.name, admitted.role, admitted.key) == ("laptop", role, pair.public)
    assert folder.admitted() == [admitted]
    assert (folder.admitted_path / "laptop").read_text() == f"{role} {pair.public.hex()}\n"


def test_the_admitted_are_listed_by_their_names(folder: KeyFolder) -> None:
    for name, pair in (("b", LAPTOP), ("a", OTHER)):
        folder.admit(line(name, pair), Role.CLIENT)
    assert [admitted.name for admitted in folder.admitted()] == ["a", "b"]


def test_a_key_admitted_again_has_the_latest_role(folder: KeyFolder) -> None:
    for role in (Role.CLIENT, Role.CLIENT, Role.OPERATOR):
        folder.admit(line("laptop", LAPTOP), role)
    assert [(admitted.name, admitted.role) for admitted in folder.admitted()] == [("laptop", Role.OPERATOR)]


def test_the_name_of_another_key_is_not_taken_over(folder: KeyFolder) -> None:
    folder.admit(line("laptop", LAPTOP), Role.CLIENT)
    with pytest.raises(UsageError, match="another key is admitted as laptop: revoke that first"):
        folder.admit(line("laptop", OTHER), Role.OPERATOR)
    assert [admitted.key for admitted in folder.admitted()] == [LAPTOP.public]


def test_a_key_has_one_name(folder: KeyFolder) -> None:
    folder.admit(line("laptop", LAPTOP), Role.CLIENT)
    with pytest.raises(UsageError, match="this key is admitted as laptop already: revoke that first"):
        folder.admit(line("other", LAPTOP), Role.OPERATOR)
    assert [admitted.name for admitted in folder.admitted()] == ["laptop"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_cannot_be_a_file_s_is_neither_admitted_nor_revoked(
    folder: KeyFolder, name: str, tmp_path: Path
) -> None:
    for act in (lambda: folder.admit(line(name, LAPTOP), Role.CLIENT), lambda: folder.revoke(name)):
        with pytest.raises(UsageError) as caught:
            act()
        assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["", "laptop", "laptop ", LAPTOP.public.hex(), f"laptop {LAPTOP.public.hex()[2:]}", line("laptop", LAPTOP) * 2],
    ids=["nothing", "no key", "an empty key", "no name", "a short key", "two lines"],
)
def test_what_is_no_public_key_is_not_admitted(folder: KeyFolder, text: str) -> None:
    with pytest.raises(UsageError):
        folder.admit(text, Role.CLIENT)
    assert not folder.path.exists()


def test_a_secret_that_is_offered_for_a_public_key_is_not_repeated(folder: KeyFolder) -> None:
    with pytest.raises(UsageError) as caught:
        folder.admit(LAPTOP.secret.hex() + "\n", Role.CLIENT)
    assert not tells(str(caught.value), LAPTOP)


def test_secrets_that_are_offered_for_a_public_key_are_not_repeated(folder: KeyFolder) -> None:
    with pytest.raises(UsageError) as caught:
        folder.admit(f"{LAPTOP.secret.hex()}\n{OTHER.secret.hex()}\n", Role.CLIENT)
    assert not tells(str(caught.value), LAPTOP, OTHER)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"client",
        b"boss " + OTHER.public.hex().encode(),
        OTHER.public.hex().encode() + b" client",
        b"client " + OTHER.public.hex().encode()[2:],
        b"client " + OTHER.public.hex().encode() + b" more",
        b"\xff\xfe",
    ],
)
def test_a_damaged_file_admits_nobody_and_keeps_nobody_out(folder: KeyFolder, text: bytes) -> None:
    folder.admit(line("laptop", LAPTOP), Role.CLIENT)
    (folder.admitted_path / "damaged").write_bytes(text)
    (folder.admitted_path / "folder").mkdir()
    (folder.admitted_path / "nowhere").symlink_to("nothing")
    # A file that is being written, or was when the power failed.
    (folder.admitted_path / ".other.123").write_text(f"operator {OTHER.public.hex()}\n")
    assert [admitted.name for admitted in folder.admitted()] == ["laptop"]
    folder.revoke("damaged")
    folder.admit(line("other", OTHER), Role.CLIENT)
    assert [admitted.name for admitted in folder.admitted()] == ["laptop", "other"]


def test_a_revoked_key_is_admitted_no_more_and_may_be_again(folder: KeyFolder) -> None:
    folder.admit(line("laptop", LAPTOP), Role.CLIENT)
    folder.revoke("laptop")
    assert folder.admitted() == []
    assert files(folder) == []
    folder.admit(line("other", LAPTOP), Role.CLIENT)
    assert [admitted.name for admitted in folder.admitted()] == ["other"]


def test_whoever_is_not_admitted_cannot_be_revoked_and_those_who_are_are_named(folder: KeyFolder) -> None:
    with pytest.raises(UsageError, match=r"^no key is admitted as 'laptop'; there are none$"):
        folder.revoke("laptop")
    for name, pair in (("b", LAPTOP), ("a", OTHER)):
        folder.admit(line(name, pair), Role.CLIENT)
    with pytest.raises(UsageError, match=r"^no key is admitted as 'laptop'; there are a, b$"):
        folder.revoke("laptop")


def test_a_disk_that_fails_leaves_no_half_a_key(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskError, match=r"server\.key: No space left on device$"):
        folder.init()
    assert folder.load(SERVER) is None


# What to show the servers.


def test_on_the_servers_own_machine_their_own_pair_is_shown(folder: KeyFolder) -> None:
    own = folder.init()
    folder.new("laptop")
    for server_key in (None, own.public):
        assert credentials(folder, server_key) == Credentials(own, own.public)


def test_without_any_key_there_is_nothing_to_show(folder: KeyFolder) -> None:
    assert credentials(folder, None) is None
    folder.new("laptop")
    assert credentials(folder, None) is None


def test_other_servers_are_shown_the_one_pair_that_is_there(folder: KeyFolder) -> None:
    pair, _ = folder.new("laptop")
    assert credentials(folder, OTHER.public) == Credentials(pair, OTHER.public)
    folder.init()
    assert credentials(folder, OTHER.public) == Credentials(pair, OTHER.public)


def test_other_servers_are_not_shown_the_servers_own_pair(folder: KeyFolder) -> None:
    folder.init()
    with pytest.raises(NotAllowedError, match="holds no key of yours: make one with msd keys new NAME"):
        credentials(folder, OTHER.public)


def test_of_several_pairs_none_is_chosen(folder: KeyFolder) -> None:
    pairs = [folder.new(name)[0] for name in ("b", "a")]
    with pytest.raises(NotAllowedError, match=r"holds the keys a, b: say which as key") as caught:
        credentials(folder, OTHER.public)
    assert not tells(str(caught.value), *pairs)


def test_one_of_several_pairs_may_be_chosen_by_its_name(folder: KeyFolder) -> None:
    pairs = {name: folder.new(name)[0] for name in ("b", "a")}
    assert credentials(folder, OTHER.public, "b") == Credentials(pairs["b"], OTHER.public)
    for name in ("c", "", SERVER, "../b"):
        with pytest.raises(NotAllowedError):
            credentials(folder, OTHER.public, name)


def test_a_secret_is_told_from_a_public_key(folder: KeyFolder) -> None:
    with pytest.raises(UsageError, match="that is a secret key") as caught:
        folder.admit(LAPTOP.secret.hex() + "\n", Role.CLIENT)
    assert not tells(str(caught.value), LAPTOP)


def test_a_damaged_pair_is_not_taken_for_none(folder: KeyFolder) -> None:
    folder.init()
    (folder.path / "server.key").write_text("damaged")
    with pytest.raises(MsdError):
        credentials(folder, None)
