"""Creating, admitting and revoking keys. Secrets are never printed and never accessible to other users."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.pretty import pretty_repr

from msd.wire.config.servers import Servers
from msd.wire.errors import DiskError, MsdError, NotAllowedError, UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.security.keys import (
    KEY_ROLES,
    KEY_SIZE,
    SERVER,
    Credentials,
    KeyFolder,
    KeyPair,
    Role,
    parse_key,
    select_credentials,
)

LAPTOP, OTHER = KeyPair.from_secret(bytes(range(1, 33))), KeyPair.from_secret(bytes(range(2, 34)))
VALID_NAMES = ["laptop", "a", "0", "x" * 64, "ann@host.example", "A-1_b.c"]
INVALID_NAMES = [
    "",
    ".",
    "..",
    "../up",
    "a/b",
    "/etc/passwd",
    ".hidden",
    "-rf",
    "x" * 65,
    "a\0b",
    "a\n",
    "ä",
    "a\x1b[2J",
]
#: Folder modes that give access to other users.
OPEN_MODES = [0o710, 0o701, 0o704, 0o750, 0o770, 0o777]


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "config" / "keys")


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Sets the umask to the fixture's parameter."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def line(name: str, pair: KeyPair) -> str:
    return f"{name} {pair.public.hex()}\n"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files(folder: KeyFolder) -> list[str]:
    return sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file())


def forms_of(secret: bytes) -> tuple[str, ...]:
    """The forms in which a secret could be printed."""
    return secret.hex(), repr(secret)[2:-1], secret.hex().upper()


def reveals(text: str, *pairs: KeyPair) -> bool:
    """True if ``text`` contains the secret of one of ``pairs``."""
    return any(form in text for pair in pairs for form in forms_of(pair.secret))


# Key pairs.


def test_a_pair_is_computed_from_its_secret() -> None:
    assert KeyPair.from_secret(LAPTOP.secret) == LAPTOP
    assert LAPTOP != OTHER
    assert len(LAPTOP.public) == len(LAPTOP.secret) == KEY_SIZE


def test_a_secret_is_not_in_the_repr_of_an_object_that_contains_it() -> None:
    own = Credentials(LAPTOP, OTHER.public)
    for value in (LAPTOP, own, [LAPTOP], Servers(Endpoint("127.0.0.1", 1), {}, pinned=False, credentials=own)):
        assert not reveals(f"{value} {value!r} {pretty_repr(value)}", LAPTOP)
        assert repr(LAPTOP.public) in repr(value)


@pytest.mark.parametrize("text", [LAPTOP.public.hex(), LAPTOP.public.hex().upper()])
def test_a_key_is_parsed(text: str) -> None:
    assert parse_key(text) == LAPTOP.public


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "a" * 63, "g" * 64, "ä" * 64, "0x" + "ab" * 32])
def test_an_invalid_key_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a key of 64 hexadecimal digits$"):
        parse_key(text)


# Creating.


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077], indirect=True, ids=oct)
def test_with_any_umask_secrets_and_folders_are_private(folder: KeyFolder, umask: int) -> None:
    folder.init()
    _, public = folder.new("laptop")
    folder.admit(public.read_text(), Role.CLIENT)
    assert [mode(path) for path in (folder.path, folder.admitted_path)] == [0o700] * 2
    secrets = [folder.path / "server.key", folder.path / "laptop.key", folder.admitted_path / "laptop"]
    assert [mode(path) for path in secrets] == [0o600] * 3
    assert mode(public) == 0o644 & ~umask


def test_the_servers_own_pair_is_created_once(folder: KeyFolder) -> None:
    assert folder.load(SERVER) is None
    pair = folder.init()
    assert folder.load(SERVER) == pair
    with pytest.raises(UsageError, match=r"server\.key already exists: remove it first"):
        folder.init()
    assert folder.load(SERVER) == pair
    assert files(folder) == ["server.key"]


@pytest.mark.parametrize("name", VALID_NAMES)
def test_a_client_pair_is_created_with_a_public_key_file(folder: KeyFolder, name: str) -> None:
    pair, public = folder.new(name)
    assert folder.load(name) == pair
    assert public.read_text() == line(name, pair)
    assert files(folder) == sorted([f"{name}.key", f"{name}.pub"])
    assert folder.pair_names() == [name]


def test_a_client_pair_is_created_once(folder: KeyFolder) -> None:
    pair, _ = folder.new("laptop")
    with pytest.raises(UsageError, match=r"laptop\.key already exists: remove it first"):
        folder.new("laptop")
    assert folder.load("laptop") == pair


@pytest.mark.parametrize("name", [*INVALID_NAMES, SERVER])
def test_a_pair_with_an_invalid_name_is_not_created(folder: KeyFolder, name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        folder.new(name)
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_the_pair_names_do_not_include_the_servers_own(folder: KeyFolder) -> None:
    assert folder.pair_names() == []
    folder.init()
    for name in ("b", "a"):
        folder.new(name)
    assert folder.pair_names() == ["a", "b"]


# Reading.


@pytest.mark.parametrize("permissions", OPEN_MODES, ids=oct)
def test_a_folder_that_other_users_can_access_is_refused(folder: KeyFolder, permissions: int) -> None:
    folder.init()
    folder.path.chmod(permissions)
    for act in (
        lambda: folder.load(SERVER),
        lambda: folder.new("laptop"),
        lambda: folder.admit(line("laptop", LAPTOP), Role.CLIENT),
        lambda: select_credentials(folder, None),
    ):
        with pytest.raises(NotAllowedError) as caught:
            act()
        assert str(caught.value) == f"{folder.path} is accessible to other users: run chmod go= {folder.path}"
    assert files(folder) == ["server.key"]


@pytest.mark.parametrize("permissions", [0o640, 0o604, 0o620, 0o602, 0o666], ids=oct)
def test_a_secret_that_other_users_can_access_is_refused(folder: KeyFolder, permissions: int) -> None:
    pair = folder.init()
    path = folder.path / "server.key"
    path.chmod(permissions)
    with pytest.raises(NotAllowedError, match=r"server\.key is accessible to other users") as caught:
        folder.load(SERVER)
    assert not reveals(str(caught.value), pair)


@pytest.mark.parametrize("permissions", OPEN_MODES, ids=oct)
def test_admitted_keys_that_other_users_can_access_are_refused(folder: KeyFolder, permissions: int) -> None:
    folder.admit(line("laptop", LAPTOP), Role.CLIENT)
    folder.admitted_path.chmod(permissions)
    for act in (folder.admitted_keys, lambda: folder.admit(line("other", OTHER), Role.CLIENT)):
        with pytest.raises(NotAllowedError, match="admitted is accessible to other users"):
            act()
    assert files(folder) == ["admitted/laptop"]


def test_keys_that_belong_to_another_user_are_refused(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.init()
    if os.getuid():
        monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    else:
        # Files that belong to root are always accepted, so another user must own the folder.
        os.chown(folder.path, 1, -1)
    with pytest.raises(NotAllowedError, match=r"keys belongs to \w+: run msd as that user"):
        folder.load(SERVER)


@pytest.mark.parametrize(
    "damage",
    [
        lambda valid: b"",
        lambda valid: valid[:-2],
        lambda valid: valid.strip() + b"ab\n",
        lambda valid: valid + valid,
        lambda valid: b"server " + valid,
        lambda valid: valid.replace(valid[:1], b"g"),
        lambda valid: bytes.fromhex(valid.decode()),
        lambda valid: b"\xff" + valid,
    ],
    ids=["empty", "short", "long", "twice", "with a name", "not hexadecimal", "binary", "not ASCII"],
)
def test_a_damaged_secret_is_refused_by_its_path_and_not_quoted(
    folder: KeyFolder, damage: Callable[[bytes], bytes]
) -> None:
    pair = folder.init()
    path = folder.path / "server.key"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises((NotAllowedError, DiskError)) as caught:
        folder.load(SERVER)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert not reveals(message, pair)
    assert pair.secret.hex()[2:20] not in message
    assert caught.value.__cause__ is None


def test_a_folder_in_the_place_of_a_secret_is_refused(folder: KeyFolder) -> None:
    folder.init()
    (folder.path / "laptop.key").mkdir()
    with pytest.raises(DiskError, match=r"laptop\.key: Is a directory"):
        folder.load("laptop")


def test_a_file_in_the_place_of_the_folder_is_refused(folder: KeyFolder) -> None:
    folder.path.parent.mkdir()
    folder.path.write_text("")
    with pytest.raises(DiskError):
        folder.init()
    with pytest.raises(DiskError):
        folder.admitted_keys()


# Symbolic links.


def test_a_link_in_the_place_of_a_new_secret_is_replaced_and_not_followed(folder: KeyFolder, tmp_path: Path) -> None:
    folder.new("other")
    (folder.path / "server.key").symlink_to(tmp_path / "target")
    pair = folder.init()
    assert not (folder.path / "server.key").is_symlink()
    assert not (tmp_path / "target").exists()
    assert folder.load(SERVER) == pair


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(folder: KeyFolder, tmp_path: Path) -> None:
    folder.new("other")
    (tmp_path / "target").write_text("precious")
    (folder.path / f".server.key.{os.getpid()}").symlink_to(tmp_path / "target")
    folder.init()
    assert (tmp_path / "target").read_text() == "precious"
    assert not (folder.path / f"{SERVER}.key").is_symlink()


def test_a_link_to_a_secret_that_other_users_can_access_is_refused(folder: KeyFolder, tmp_path: Path) -> None:
    folder.new("other")
    (tmp_path / "open").write_text(LAPTOP.secret.hex())
    (tmp_path / "open").chmod(0o644)
    (folder.path / "laptop.key").symlink_to(tmp_path / "open")
    with pytest.raises(NotAllowedError, match=r"laptop\.key is accessible to other users"):
        folder.load("laptop")


def test_a_link_in_the_place_of_an_admitted_key_is_replaced_and_can_be_revoked(
    folder: KeyFolder, tmp_path: Path
) -> None:
    folder.admit(line("other", OTHER), Role.CLIENT)
    (tmp_path / "target").write_text("precious")
    path = folder.admitted_path / "laptop"
    path.symlink_to(tmp_path / "target")
    folder.admit(line("laptop", LAPTOP), Role.CLIENT)
    assert not path.is_symlink()
    path.unlink()
    path.symlink_to(tmp_path / "target")
    folder.revoke("laptop")
    assert (tmp_path / "target").read_text() == "precious"
    assert [admitted.name for admitted in folder.admitted_keys()] == ["other"]


def test_a_link_to_a_folder_of_admitted_keys_that_other_users_can_access_is_refused(
    folder: KeyFolder, tmp_path: Path
) -> None:
    folder.init()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    folder.admitted_path.symlink_to(tmp_path / "open")
    with pytest.raises(NotAllowedError, match="is accessible to other users"):
        folder.admitted_keys()


# Admitting and revoking.


def test_a_new_folder_has_no_admitted_keys(folder: KeyFolder) -> None:
    assert folder.admitted_keys() == []


@pytest.mark.parametrize("role", sorted(KEY_ROLES))
def test_a_key_is_admitted_in_its_role(folder: KeyFolder, role: Role) -> None:
    pair, public = folder.new("laptop")
    admitted = folder.admit(public.read_text(), role)
    assert (admitted.name, admitted.role, admitted.key) == ("laptop", role, pair.public)
    assert folder.admitted_keys() == [admitted]
    assert (folder.admitted_path / "laptop").read_text() == f"{role} {pair.public.hex()}\n"


def test_the_admitted_keys_are_sorted_by_name(folder: KeyFolder) -> None:
    for name, pair in (("b", LAPTOP), ("a", OTHER)):
        folder.admit(line(name, pair), Role.CLIENT)
    assert [admitted.name for admitted in folder.admitted_keys()] == ["a", "b"]


def test_admitting_a_key_again_changes_its_role(folder: KeyFolder) -> None:
    for role in (Role.CLIENT, Role.CLIENT, Role.OPERATOR):
        folder.admit(line("laptop", LAPTOP), role)
    assert [(admitted.name, admitted.role) for admitted in folder.admitted_keys()] == [("laptop", Role.OPERATOR)]


@pytest.mark.parametrize(
    ("expiry", "expires"),
    [
        ("", math.inf),
        (" 1800000000", 1.8e9),
        (" inf", math.inf),
        (" nan", None),
        (" -1", None),
        (" 1e15", None),
        (" x", None),
    ],
)
def test_a_key_with_an_invalid_expiry_is_ignored(folder: KeyFolder, expiry: str, expires: float | None) -> None:
    folder.admit(line("laptop", LAPTOP), Role.CLIENT)
    (folder.admitted_path / "laptop").write_text(f"client {LAPTOP.public.hex()}{expiry}\n")
    assert [admitted.expires for admitted in folder.admitted_keys()] == ([] if expires is None else [expires])


def test_the_name_of_another_key_is_refused(folder: KeyFolder) -> None:
    folder.admit(line("laptop", LAPTOP), Role.CLIENT)
    with pytest.raises(UsageError, match="another key is already admitted as laptop: give this key another name"):
        folder.admit(line("laptop", OTHER), Role.OPERATOR)
    assert [admitted.key for admitted in folder.admitted_keys()] == [LAPTOP.public]
    folder.admit(line("laptop", OTHER), Role.OPERATOR, "laptop-of-ann")
    assert [(admitted.name, admitted.key) for admitted in folder.admitted_keys()] == [
        ("laptop", LAPTOP.public),
        ("laptop-of-ann", OTHER.public),
    ]
    with pytest.raises(UsageError, match="another key is already admitted as laptop-of-ann"):
        folder.admit(line("desk", KeyPair.generate()), Role.CLIENT, "laptop-of-ann")


def test_a_key_cannot_have_two_names(folder: KeyFolder) -> None:
    folder.admit(line("laptop", LAPTOP), Role.CLIENT)
    with pytest.raises(UsageError, match="this key is already admitted as laptop: revoke it first"):
        folder.admit(line("other", LAPTOP), Role.OPERATOR)
    assert [admitted.name for admitted in folder.admitted_keys()] == ["laptop"]


@pytest.mark.parametrize("name", INVALID_NAMES)
def test_a_key_is_not_admitted_under_an_invalid_name(folder: KeyFolder, name: str) -> None:
    with pytest.raises(UsageError, match="invalid key name"):
        folder.admit(line("laptop", LAPTOP), Role.CLIENT, name)
    assert folder.admitted_keys() == []


@pytest.mark.parametrize("name", INVALID_NAMES)
def test_an_invalid_name_is_neither_admitted_nor_revoked(folder: KeyFolder, name: str, tmp_path: Path) -> None:
    for act in (lambda: folder.admit(line(name, LAPTOP), Role.CLIENT), lambda: folder.revoke(name)):
        with pytest.raises(UsageError) as caught:
            act()
        assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["", "laptop", "laptop ", LAPTOP.public.hex(), f"laptop {LAPTOP.public.hex()[2:]}", line("laptop", LAPTOP) * 2],
    ids=["empty", "no key", "an empty key", "no name", "a short key", "two lines"],
)
def test_an_invalid_public_key_is_not_admitted(folder: KeyFolder, text: str) -> None:
    with pytest.raises(UsageError):
        folder.admit(text, Role.CLIENT)
    assert not folder.path.exists()


def test_secrets_given_as_a_public_key_are_refused_and_not_quoted(folder: KeyFolder) -> None:
    with pytest.raises(UsageError) as caught:
        folder.admit(f"{LAPTOP.secret.hex()}\n{OTHER.secret.hex()}\n", Role.CLIENT)
    assert not reveals(str(caught.value), LAPTOP, OTHER)


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
def test_a_damaged_file_is_ignored_and_does_not_affect_other_keys(folder: KeyFolder, text: bytes) -> None:
    folder.admit(line("laptop", LAPTOP), Role.CLIENT)
    (folder.admitted_path / "damaged").write_bytes(text)
    (folder.admitted_path / "folder").mkdir()
    (folder.admitted_path / "nowhere").symlink_to("nothing")
    # A temporary file, as left behind by a power failure.
    (folder.admitted_path / ".other.123").write_text(f"operator {OTHER.public.hex()}\n")
    assert [admitted.name for admitted in folder.admitted_keys()] == ["laptop"]
    folder.revoke("damaged")
    folder.admit(line("other", OTHER), Role.CLIENT)
    assert [admitted.name for admitted in folder.admitted_keys()] == ["laptop", "other"]


def test_a_revoked_key_can_be_admitted_again(folder: KeyFolder) -> None:
    folder.admit(line("laptop", LAPTOP), Role.CLIENT)
    folder.revoke("laptop")
    assert folder.admitted_keys() == []
    assert files(folder) == []
    folder.admit(line("other", LAPTOP), Role.CLIENT)
    assert [admitted.name for admitted in folder.admitted_keys()] == ["other"]


def test_revoking_an_unknown_name_lists_the_admitted_keys(folder: KeyFolder) -> None:
    with pytest.raises(UsageError, match=r"^no key is admitted as 'laptop': no keys are admitted$"):
        folder.revoke("laptop")
    for name, pair in (("b", LAPTOP), ("a", OTHER)):
        folder.admit(line(name, pair), Role.CLIENT)
    with pytest.raises(UsageError, match=r"^no key is admitted as 'laptop': choose from a, b$"):
        folder.revoke("laptop")


def test_a_full_disk_leaves_no_partial_key(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskError, match=r"server\.key: No space left on device$"):
        folder.init()
    assert folder.load(SERVER) is None


# Selecting a key pair.


def test_on_the_servers_machine_their_own_pair_is_selected(folder: KeyFolder) -> None:
    own = folder.init()
    folder.new("laptop")
    for server_key in (None, own.public):
        assert select_credentials(folder, server_key) == Credentials(own, own.public)


def test_without_a_server_key_client_pairs_are_not_selected(folder: KeyFolder) -> None:
    assert select_credentials(folder, None) is None
    folder.new("laptop")
    assert select_credentials(folder, None) is None


def test_for_other_servers_the_only_client_pair_is_selected(folder: KeyFolder) -> None:
    pair, _ = folder.new("laptop")
    assert select_credentials(folder, OTHER.public) == Credentials(pair, OTHER.public)
    folder.init()
    assert select_credentials(folder, OTHER.public) == Credentials(pair, OTHER.public)


def test_for_other_servers_the_servers_own_pair_is_not_selected(folder: KeyFolder) -> None:
    folder.init()
    with pytest.raises(NotAllowedError, match="contains no client key: create one with msd keys new NAME"):
        select_credentials(folder, OTHER.public)


def test_with_several_pairs_one_has_to_be_named(folder: KeyFolder) -> None:
    pairs = [folder.new(name)[0] for name in ("b", "a")]
    with pytest.raises(NotAllowedError, match=r"contains the keys a, b: choose one with key") as caught:
        select_credentials(folder, OTHER.public)
    assert not reveals(str(caught.value), *pairs)


def test_one_of_several_pairs_can_be_named(folder: KeyFolder) -> None:
    pairs = {name: folder.new(name)[0] for name in ("b", "a")}
    assert select_credentials(folder, OTHER.public, "b") == Credentials(pairs["b"], OTHER.public)
    for name in ("c", "", SERVER, "../b"):
        with pytest.raises(NotAllowedError):
            select_credentials(folder, OTHER.public, name)


def test_a_secret_given_as_a_public_key_is_recognized_and_not_quoted(folder: KeyFolder) -> None:
    with pytest.raises(UsageError, match="this is a secret key") as caught:
        folder.admit(LAPTOP.secret.hex() + "\n", Role.CLIENT)
    assert not reveals(str(caught.value), LAPTOP)


def test_a_damaged_pair_is_an_error_when_selected(folder: KeyFolder) -> None:
    folder.init()
    (folder.path / "server.key").write_text("damaged")
    with pytest.raises(MsdError):
        select_credentials(folder, None)


def test_the_error_about_a_folder_that_cannot_be_made_says_what_to_do() -> None:
    with pytest.raises(DiskError, match=r"^/proc/msd: .*: make its folder writable, or set \[broker\] keys "):
        KeyFolder(Path("/proc/msd")).init()
