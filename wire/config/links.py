"""Links: one line that says where a file is shared, and with which keys. Pure.

::

    msd://HOST[:PORT]/NAME[#KEYS]

HOST and PORT are those of server 5; an IPv6 address is in brackets, and the usual port may be left out. NAME is a file
or a folder (``photos/``), percent-encoded; without it everything is meant. KEYS is base64url without padding: the
public key of the servers (32 bytes), the seed of a client's key (16 bytes) if the link is an invitation, and 3 bytes of
a hash of all the rest, which tell a link that was changed on its way from one that was revoked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from urllib.parse import quote, unquote

from msgspec import Struct

from msd.wire.config.settings import DEFAULT_PORTS
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.security.keys import KEY_SIZE, KeyPair

SCHEME = "msd://"
#: Sizes in bytes.
SEED_SIZE, CHECK_SIZE = 16, 3
#: Longer links are refused: a name has at most 4096 characters, each of at most four percent-encoded bytes.
MAX_LINK = 50_000
#: Characters of a name that need no percent-encoding in a link.
_SAFE = "/!$&'()*,;=:@~+"


class Link(Struct, frozen=True):
    """Where a file or folder ``name`` is shared; empty for everything. ``server_key`` is the public key of the servers,
    None without keys; ``seed`` makes the key of an invited client, None if the client has one of its own.
    """

    server5: Endpoint
    name: str = ""
    server_key: bytes | None = None
    seed: bytes | None = None

    def __repr__(self) -> str:
        return f"Link({self.server5}, {self.name!r})"

    @property
    def text(self) -> str:
        """The link as ``parse`` reads it."""
        host = f"[{self.server5.host}]" if self.server5.is_ipv6 else self.server5.host
        port = "" if self.server5.port == DEFAULT_PORTS[4] else f":{self.server5.port}"
        place = f"{SCHEME}{host}{port}/{quote(self.name, safe=_SAFE)}"
        if self.server_key is None:
            return place
        keys = self.server_key + (self.seed or b"")
        return f"{place}#{_encoded(keys + _check(place, keys))}"

    @property
    def key_pair(self) -> KeyPair | None:
        """The key pair of the invited client; None if the link is no invitation."""
        return None if self.seed is None else key_pair(self.seed)

    @classmethod
    def parse(cls, text: str) -> Link:
        """Reads a link. Raises ``UsageError``, which does not quote the link: it may be secret."""
        place, has_keys, fragment = text.partition("#")
        address, _, path = place.removeprefix(SCHEME).partition("/")
        if not text.startswith(SCHEME) or len(text) > MAX_LINK or not address:
            raise UsageError("not a link: expected msd://HOST/NAME, as msd invite prints it")
        try:
            server5 = Endpoint.parse(address, DEFAULT_PORTS[4])
            name = unquote(path, errors="strict")
        except (UsageError, UnicodeDecodeError):
            raise UsageError("the link is damaged: copy all of it again") from None
        if not has_keys:
            return cls(server5, name)
        try:
            keys = base64.b64decode(fragment + "=" * (-len(fragment) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            keys = b""
        keys, check = keys[:-CHECK_SIZE], keys[-CHECK_SIZE:]
        if len(keys) not in (KEY_SIZE, KEY_SIZE + SEED_SIZE) or check != _check(place, keys):
            raise UsageError("the link is incomplete, or a character was changed: copy all of it again")
        return cls(server5, name, keys[:KEY_SIZE], keys[KEY_SIZE:] or None)


def key_pair(seed: bytes) -> KeyPair:
    """Returns the key pair that a seed makes."""
    return KeyPair.from_secret(hashlib.blake2s(seed, person=b"msd key").digest())


def _check(place: str, keys: bytes) -> bytes:
    return hashlib.blake2s(place.encode() + b"#" + keys, digest_size=CHECK_SIZE).digest()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
