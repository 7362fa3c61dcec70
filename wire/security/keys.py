"""Keys: whose servers these are, who may come in, and as what.

A key pair is CURVE25519, 32 bytes each, written as 64 hexadecimal digits. They lie in a folder that
no other user can read::

    server.key     the servers' own pair (secret)
    NAME.key       a client's pair, made on the machine where it is used (secret)
    NAME.pub       its public key, to be carried to the servers: a line "NAME KEY"
    admitted/NAME  on the servers: a line "ROLE KEY" for each key that may come in

A secret is never printed, nor given as an argument of a command. Opens no socket; who is let in
by these keys is decided in ``wire/security/zap.py``.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from msd.wire.errors import DiskError, NotAllowedError, UsageError

KEY_SIZE = 32
#: The name of the servers' own pair.
SERVER = "server"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class Role(StrEnum):
    """What an admitted key may do."""

    CLIENT = "client"  #: see what is shared, download it, and see how the servers are
    OPERATOR = "operator"  #: also give orders
    WORKER = "worker"  #: nothing yet: for workers on other machines


# No Struct: a dataclass can keep a field out of its repr.
@dataclass(frozen=True, slots=True)
class KeyPair:
    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> KeyPair:
        import zmq
        from zmq.utils import z85

        public, secret = zmq.curve_keypair()
        return cls(z85.decode(public), z85.decode(secret))

    @classmethod
    def of(cls, secret: bytes) -> KeyPair:
        """The pair of a secret key."""
        import zmq
        from zmq.utils import z85

        return cls(z85.decode(zmq.curve_public(z85.encode(secret))), secret)


class Credentials(Struct, frozen=True):
    """What a client or an operator shows the servers, and the key by which it knows them."""

    own: KeyPair
    server: bytes


class Admitted(Struct, frozen=True):
    """A key that may come in."""

    name: str
    role: Role
    key: bytes


class KeyFolder:
    """The keys of one machine. Raises ``MsdError``, ``NotAllowedError`` where others could read them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def admitted_path(self) -> Path:
        return self.path / "admitted"

    def init(self) -> KeyPair:
        """Makes the servers' own pair."""
        return self._create(SERVER)

    def new(self, name: str) -> tuple[KeyPair, Path]:
        """Makes a client's pair; and the file of its public key, to be admitted by the servers."""
        if name == SERVER:
            raise UsageError(f"the name {SERVER!r} is the servers' own: choose another one")
        pair = self._create(name)
        public = self.path / f"{name}.pub"
        _write(public, f"{name} {pair.public.hex()}\n", 0o644)
        return pair, public

    def admit(self, text: str, role: Role) -> Admitted:
        """Admits the public key in ``text``, which is what a file ``NAME.pub`` holds."""
        name, _, key_text = text.strip().partition(" ")
        if not key_text and len(name) == 2 * KEY_SIZE:
            raise UsageError("that is a secret key, which stays where it was made: admit the file NAME.pub beside it")
        try:
            admitted = Admitted(_checked_name(name), role, parse_key(key_text.strip()))
        except (ValueError, UsageError):
            # Nothing of it is repeated: somebody may have taken a secret for it.
            raise UsageError("not a public key: that is a line of a name, a space and 64 hexadecimal digits") from None
        for other in self.admitted():
            if other.name == name and other.key != admitted.key:
                raise UsageError(f"another key is admitted as {name}: revoke that first, or name this one otherwise")
            if other.name != name and other.key == admitted.key:
                raise UsageError(f"this key is admitted as {other.name} already: revoke that first")
        _make_folder(self.path)
        _make_folder(self.admitted_path)
        _write(self.admitted_path / name, f"{role} {admitted.key.hex()}\n", 0o600)
        return admitted

    def revoke(self, name: str) -> None:
        try:
            (self.admitted_path / _checked_name(name)).unlink()
        except FileNotFoundError:
            names = ", ".join(admitted.name for admitted in self.admitted())
            raise UsageError(f"no key is admitted as {name!r}; there are {names or 'none'}") from None
        except OSError as error:
            raise _unusable(self.admitted_path / name, error) from None

    def admitted(self) -> list[Admitted]:
        """Every key that may come in, in order of their names. A file that is no such key admits nobody."""
        admitted = []
        try:
            names = sorted(os.listdir(self.admitted_path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unusable(self.admitted_path, error) from None
        _check_private(self.admitted_path)
        for name in names:
            try:
                role, key = (self.admitted_path / name).read_text(encoding="ascii").split()
                admitted.append(Admitted(_checked_name(name), Role(role), parse_key(key)))
            except (OSError, ValueError, UsageError):
                continue
        return admitted

    def pairs(self) -> list[str]:
        """The names of the pairs whose secrets lie here, the servers' own not among them."""
        names = sorted(path.stem for path in self.path.glob("*.key"))
        return [name for name in names if name != SERVER]

    def load(self, name: str) -> KeyPair | None:
        """The pair of that name, None if there is none."""
        path = self.path / f"{name}.key"
        try:
            text = path.read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _unusable(path, error) from None
        _check_private(self.path)
        _check_private(path)
        try:
            return KeyPair.of(parse_key(text.strip()))
        except ValueError:
            raise NotAllowedError(f"{path}: not a secret key: make a new one with msd keys") from None

    def _create(self, name: str) -> KeyPair:
        path = self.path / f"{_checked_name(name)}.key"
        _make_folder(self.path)
        if path.exists():
            raise UsageError(f"{path} exists: a key is made once; remove it to make another one")
        pair = KeyPair.generate()
        _write(path, pair.secret.hex() + "\n", 0o600)
        return pair


def credentials(folder: KeyFolder, server_key: bytes | None, name: str | None = None) -> Credentials | None:
    """What to show the servers of that key: the pair ``name``, or the only one in the folder. Without a
    ``server_key`` the servers are those of this machine, and their own pair is shown; None if it is not
    here.
    """
    own_servers = folder.load(SERVER)
    if own_servers is not None and server_key in (None, own_servers.public):
        return Credentials(own_servers, own_servers.public)
    if server_key is None:
        return None
    names = folder.pairs()
    chosen = name if name is not None else names[0] if len(names) == 1 else ""
    pair = folder.load(chosen) if chosen in names else None
    if pair is None and names:
        hint = 'say which as key = "NAME" under [client] in config.toml'
        raise NotAllowedError(f"{folder.path} holds the keys {', '.join(names)}: {hint}")
    if pair is None:
        hint = "make one with msd keys new NAME, and have it admitted"
        raise NotAllowedError(f"{folder.path} holds no key of yours: {hint}")
    return Credentials(pair, server_key)


def parse_key(text: str) -> bytes:
    """A key from its text. Raises ``ValueError`` (what is allowed), which does not repeat the text."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE:
        raise ValueError("a key of 64 hexadecimal digits")
    return key


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a key: use letters, digits and . _ @ -")
    return name


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from None
    _check_private(path)


def _check_private(path: Path) -> None:
    status = path.stat()
    if status.st_uid not in (os.getuid(), 0) or stat.S_IMODE(status.st_mode) & 0o077:
        raise NotAllowedError(f"{path} is open to other users: chmod go= {path}")


def _write(path: Path, text: str, mode: int) -> None:
    """Writes a whole file or none, never readable to more than ``mode`` says."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.replace(temporary, path)
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: Exception) -> DiskError:
    return DiskError(f"{path}: {getattr(error, 'strerror', None) or 'not a key'}")
