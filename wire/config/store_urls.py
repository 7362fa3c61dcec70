"""URLs of what is shared from an object store or a web server: ``s3://BUCKET/PREFIX/`` or ``https://HOST/FILE``.

Connects to nothing: see ``workers/source/object_store.py``.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from msd.wire.errors import UsageError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
#: How many bytes of what has to be waited for a worker keeps in memory.
DEFAULT_CACHE = 64 << 20
#: The schemes of object stores, and of web servers.
STORES, WEB = ("s3", "gs", "az"), ("http", "https")


class StoreUrl(Struct, frozen=True):
    """``place`` is the bucket or, of a web server, ``HOST`` or ``HOST:PORT``. ``path`` is a key, or a prefix if it ends
    in ``/`` or is empty; if it does not, it may be either. A web server has files only.
    """

    scheme: str
    place: str
    path: str

    @classmethod
    def parse(cls, text: str) -> StoreUrl:
        """Raises ``UsageError``."""
        match = _URL.match(text)
        scheme = match[1].lower() if match is not None else ""
        if scheme in STORES:
            place, _, path = text[len(scheme) + 3 :].partition("/")
            if not place or re.search(r"[\s?#@]", place):
                raise UsageError(f"{text}: must be {scheme}://BUCKET/PREFIX")
            if any(part in ("", ".", "..") for part in path.removesuffix("/").split("/")) and path:
                raise UsageError(f"{text}: keys with empty parts, . or .. cannot be shared")
            return cls(scheme, place, path)
        if scheme not in WEB:
            known = ", ".join(f"{known}://" for known in (*STORES, *WEB))
            raise UsageError(f"{text}: cannot be shared from there: expected a path, or one of {known}")
        parts = urlsplit(text)
        if "@" in parts.netloc or parts.query or parts.fragment or not parts.hostname:
            # Do not quote it: it may contain a password or a signature.
            raise UsageError(f"a URL with {scheme}:// must be {scheme}://HOST/FILE, without user, query and fragment")
        path = unquote(parts.path.removeprefix("/"))
        if not path or path.endswith("/"):
            raise UsageError(f"{text}: a web server has no list of its files: give the URL of a file")
        return cls(scheme, parts.netloc, path)

    @property
    def is_folder(self) -> bool:
        """True if it can only be a prefix."""
        return not self.path or self.path.endswith("/")

    @property
    def name(self) -> str:
        """The last part: the name of a file, or of a folder."""
        return self.path.removesuffix("/").rpartition("/")[2] or self.place

    @property
    def store(self) -> str:
        """The bucket, or the web server, with its scheme."""
        return f"{self.scheme}://{self.place}"

    def __str__(self) -> str:
        return f"{self.store}/{self.path}" if self.path else self.store
