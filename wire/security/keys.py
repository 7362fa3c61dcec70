"""Key pairs and the folder that holds them: the servers' own pair, clients' pairs, and the admitted keys.

A key is 32 bytes of CURVE25519, written as 64 hexadecimal digits. The folder is private to its user::

    server.key     the servers' own pair (secret)
    NAME.key       a client's pair, created on the machine where it is used (secret)
    NAME.pub       its public key, to be copied to the servers: a line "NAME KEY"
    admitted/NAME  on the servers: a line "ROLE KEY" for each admitted key, "ROLE KEY TIME" if it expires, or
                   "ROLE KEY TIME SCOPE" for an invitation (the name of a file or folder, percent-encoded)

Secret keys are never printed and never passed as command-line arguments. Opens no sockets: ``wire/security/zap.py``
decides which connections are admitted.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
from enum import StrEnum
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from msd.wire.errors import DiskError, NotAllowedError, UsageError
from msd.wire.support.files import replace_file

KEY_SIZE = 32
#: The last time at which a key may expire: the end of the year 9999.
MAX_TIME = 253_402_000_000
#: The name of the servers' own pair; a client's pair cannot have this name.
SERVER = "server"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class Role(StrEnum):
    """What a peer may do."""

    CLIENT = "client"  #: list files, download them and read the servers' status
    OPERATOR = "operator"  #: also toggle workers and stop the servers
    WORKER = "worker"  #: join as a worker
    ANYONE = "anyone"  #: everything: any peer of servers that use no keys. No key has this role


#: The roles in which a key may be admitted.
KEY_ROLES = frozenset({Role.CLIENT, Role.OPERATOR, Role.WORKER})


class KeyPair(Struct, frozen=True):
    """A public and a secret key, 32 bytes each."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("public", self.public)]

    @classmethod
    def generate(cls) -> KeyPair:
        """Returns a new random pair."""
        return cls.from_secret(os.urandom(KEY_SIZE))

    @classmethod
    def from_secret(cls, secret: bytes) -> KeyPair:
        """Returns the pair that belongs to a secret key."""
        import zmq
        from zmq.utils import z85

        return cls(z85.decode(zmq.curve_public(z85.encode(secret))), secret)


class Credentials(Struct, frozen=True):
    """A client's or operator's own key pair, and the public key of the servers."""

    own: KeyPair
    server: bytes


class AdmittedKey(Struct, frozen=True):
    """A public key that may connect, with its name and role. It expires at ``expires`` (seconds since 1970). ``scope``
    is the only file or folder that it may have, empty for everything.
    """

    name: str
    role: Role
    key: bytes
    expires: float = math.inf
    scope: str = ""


class KeyFolder:
    """The key files of one machine.

    Methods raise ``NotAllowedError`` if other users can access the files, ``DiskError`` if they cannot be read or
    written, and ``UsageError`` for invalid names and keys.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def admitted_path(self) -> Path:
        """The folder of the admitted keys."""
        return self.path / "admitted"

    def init(self) -> KeyPair:
        """Creates the servers' own pair."""
        return self._create(SERVER)

    def new(self, name: str) -> tuple[KeyPair, Path]:
        """Creates a client's pair. Returns the pair and the path of its public key, which the servers must admit."""
        if name == SERVER:
            raise UsageError(f"the name {SERVER!r} is reserved for the servers: choose another one")
        pair = self._create(name)
        public_path = self.path / f"{name}.pub"
        _write(public_path, f"{name} {pair.public.hex()}\n", 0o644)
        return pair, public_path

    def admit(
        self, text: str, role: Role, name: str | None = None, *, expires: float = math.inf, scope: str = ""
    ) -> AdmittedKey:
        """Admits the public key in ``text``, the content of a file ``NAME.pub``, as ``name``; None means its NAME."""
        own_name, _, key_text = text.strip().partition(" ")
        if not key_text and len(own_name) == 2 * KEY_SIZE:
            raise UsageError("this is a secret key, which must not leave its machine: admit the file NAME.pub instead")
        try:
            admitted = AdmittedKey(_checked_name(own_name), role, parse_key(key_text.strip()), expires, scope)
        except (ValueError, UsageError):
            # Do not quote the text: it may contain a secret.
            raise UsageError("not a public key: expected a name, a space and 64 hexadecimal digits") from None
        if name is not None:
            admitted = replace(admitted, name=_checked_name(name))
        for other in self.admitted_keys():
            if other.name == admitted.name and other.key != admitted.key:
                raise UsageError(
                    f"another key is already admitted as {other.name}: give this key another name with --name,"
                    " or revoke the other key first"
                )
            if other.name != admitted.name and other.key == admitted.key:
                raise UsageError(f"this key is already admitted as {other.name}: revoke it first")
        _make_folder(self.path)
        _make_folder(self.admitted_path)
        words = [role, admitted.key.hex()]
        from urllib.parse import quote  # Slow to import, and not needed by a client.

        if scope or expires != math.inf:
            words += [f"{expires:.0f}", quote(scope, safe="/")]
        _write(self.admitted_path / admitted.name, " ".join(words).strip() + "\n", 0o600)
        return admitted

    def revoke(self, name: str) -> None:
        """Removes the admitted key called ``name``. Raises ``UsageError`` if there is none."""
        try:
            (self.admitted_path / _checked_name(name)).unlink()
        except FileNotFoundError:
            names = ", ".join(admitted.name for admitted in self.admitted_keys())
            hint = f"choose from {names}" if names else "no keys are admitted"
            raise UsageError(f"no key is admitted as {name!r}: {hint}") from None
        except OSError as error:
            raise _disk_error(self.admitted_path / name, error) from None

    def admitted_keys(self) -> list[AdmittedKey]:
        """Returns the admitted keys, sorted by name. Ignores files that do not contain a valid key."""
        admitted = []
        try:
            names = sorted(os.listdir(self.admitted_path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _disk_error(self.admitted_path, error) from None
        _check_private(self.admitted_path)
        for name in names:
            try:
                text = (self.admitted_path / name).read_text(encoding="ascii")
                admitted.append(_parse_admitted(_checked_name(name), *text.split()))
            except (OSError, ValueError, TypeError, UsageError):
                continue
        return admitted

    def pair_names(self) -> list[str]:
        """Returns the sorted names of the clients' pairs in this folder."""
        names = sorted(path.stem for path in self.path.glob("*.key"))
        return [name for name in names if name != SERVER]

    def load(self, name: str) -> KeyPair | None:
        """Returns the pair called ``name``, None if there is none."""
        path = self.path / f"{name}.key"
        try:
            text = path.read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _disk_error(path, error) from None
        _check_private(self.path)
        _check_private(path)
        try:
            return KeyPair.from_secret(parse_key(text.strip()))
        except ValueError:
            raise NotAllowedError(f"{path}: not a secret key: remove it and create a new one with msd keys") from None

    def _create(self, name: str) -> KeyPair:
        path = self.path / f"{_checked_name(name)}.key"
        _make_folder(self.path)
        if path.exists():
            raise UsageError(f"{path} already exists: remove it first to create another key")
        pair = KeyPair.generate()
        _write(path, pair.secret.hex() + "\n", 0o600)
        return pair


def select_credentials(
    folder: KeyFolder, server_key: bytes | None, name: str | None = None, *, may_be_server: bool = True
) -> Credentials | None:
    """Selects the key pair for connecting to the servers whose public key is ``server_key``: the pair called ``name``,
    by default the only client's pair in the folder. If ``server_key`` is None, the servers are on this machine: selects
    their own pair, or returns None if the folder does not contain it. With ``may_be_server`` False, the key is that of
    a worker, and it never selects that pair. Raises ``NotAllowedError`` if no pair can be selected.
    """
    server_pair = folder.load(SERVER) if may_be_server else None
    if server_pair is not None and server_key in (None, server_pair.public):
        return Credentials(server_pair, server_pair.public)
    if server_key is None:
        return None
    names = folder.pair_names()
    chosen = name if name is not None else names[0] if len(names) == 1 else ""
    pair = folder.load(chosen) if chosen in names else None
    if pair is None and names:
        hint = 'choose one with key = "NAME" under [client] in the config.toml of the current folder'
        raise NotAllowedError(f"{folder.path} contains the keys {', '.join(names)}: {hint}")
    if pair is None:
        kind, role = ("client", "") if may_be_server else ("worker", " with --role worker")
        hint = f"create one with msd keys new NAME and have it admitted{role}"
        raise NotAllowedError(f"{folder.path} contains no {kind} key: {hint}")
    return Credentials(pair, server_key)


def parse_key(text: str) -> bytes:
    """Parses a key. Raises ``ValueError`` with a description of the valid format that does not quote ``text``, which
    may be secret.
    """
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE:
        raise ValueError("a key of 64 hexadecimal digits")
    return key


def key_hash(key: bytes) -> bytes:
    """Returns the hash by which the servers name a key to the workers of other machines, which need not know it."""
    import hashlib  # Not needed by a client.

    return hashlib.sha256(key).digest()


def _parse_admitted(name: str, role: str, key: str, expires: str = "inf", scope: str = "") -> AdmittedKey:
    """Returns the key that the words of the line for ``name`` admit. Raises ``ValueError``."""
    from urllib.parse import unquote

    time = float(expires)
    if role not in KEY_ROLES or not (0 <= time <= MAX_TIME or time == math.inf):
        raise ValueError(role)
    return AdmittedKey(name, Role(role), parse_key(key), time, unquote(scope, errors="strict"))


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(f"invalid key name {name!r}: use letters, digits and . _ @ -")
    return name


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _write_error(path, error) from None
    _check_private(path)


def _check_private(path: Path) -> None:
    status = path.stat()
    if status.st_uid not in (os.getuid(), 0):
        raise NotAllowedError(f"{path} belongs to {_user_name(status.st_uid)}: run msd as that user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise NotAllowedError(f"{path} is accessible to other users: run chmod go= {path}")


def _user_name(uid: int) -> str:
    import pwd  # Only for an error message.

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user with the number {uid}"


def _write(path: Path, text: str, mode: int) -> None:
    """Writes a file atomically; its permissions never exceed ``mode``."""
    try:
        replace_file(path, text.encode("ascii"), mode=mode, sync=True)
    except OSError as error:
        raise _write_error(path, error) from None


def _write_error(path: Path, error: OSError) -> DiskError:
    is_unwritable = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT)
    hint = ": make its folder writable, or set [broker] keys in config.toml to another one" if is_unwritable else ""
    return DiskError(f"{_disk_error(path, error)}{hint}")


def _disk_error(path: Path, error: Exception) -> DiskError:
    return DiskError(f"{path}: {getattr(error, 'strerror', None) or 'not a key'}")
