"""A bucket of an object store, or a web server: lists objects and reads ranges of them, through obstore.

The only module that imports obstore. Its calls wait for the network: they are made in threads, or by the indexer. Does
not know what is shared of it (``workers/source/scan.py``) and keeps nothing (``workers/serving/piece_reads.py``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from msd.wire.config.store_urls import WEB, StoreUrl
from msd.wire.errors import UsageError
from msd.wire.support.install_command import install_command
from msd.wire.support.presentable_names import presentable
from msd.workers.source.catalogue import MAX_TIME_NS, Version

if TYPE_CHECKING:
    from obstore import GetOptions

#: obstore waits for 3 minutes by default. A store that does not answer must be known as such within seconds, but a slow
#: link needs time: many requests share it.
CONNECT_TIMEOUT_S, SILENCE_TIMEOUT_S, REQUEST_TIMEOUT_S, RETRY_TIMEOUT_S, RETRIES = 3, 10, 60, 10, 2
#: A read takes at most this many seconds, with all retries.
READ_LIMIT_S = 2 * (REQUEST_TIMEOUT_S + RETRY_TIMEOUT_S)
#: Objects in a page of a list.
PAGE = 1000
#: The permissions that the files of a store have.
FILE_MODE = 0o644


class StoreError(OSError):
    """What a store answered. ``errno`` is ``ENOENT`` if there is no such object, ``ESTALE`` if it was replaced, ``EIO``
    if the answer is wrong, ``EINVAL`` if a key cannot be the name of a file, and ``EAGAIN`` if it may go better later.
    """


class ObjectStore:
    """The store of ``url``. ``settings`` are those of [store] in ``config.toml``; the environment has the others.

    Raises ``UsageError`` if obstore is not installed, or if it does not accept a setting.
    """

    def __init__(self, url: StoreUrl, settings: Mapping[str, str]) -> None:
        self.url = url
        #: Versions of files in other stores have other numbers.
        self.device = _number(url.store)
        #: Where an S3 store is, without user and password; empty if the provider's own address is used.
        self.endpoint = ""
        if url.scheme == "s3":
            self.endpoint = re.sub("//[^/]*@", "//", _endpoint(settings))
        self._is_object: bool | None = None
        try:
            self._store = _open(url, settings)
        except ImportError:
            raise UsageError(f"{url}: an object store needs obstore: {install_command('obstore')}") from None
        except Exception as error:
            hint = ""
            if "No CA certificates" in str(error):  # Not in its first line. It also needs them for http.
                hint = ": there are no CA certificates: install ca-certificates, or set SSL_CERT_FILE"
            elif "Account must be specified" in str(error):
                hint = ": set AZURE_STORAGE_ACCOUNT_NAME to the name of the storage account"
            raise UsageError(f"{url}: {_first_line(error)}{hint}") from None

    def key(self, name: str) -> str:
        """Returns the key of a file of this share: ``name`` is its base name, or its name below the prefix. May ask the
        store. Raises ``StoreError``.
        """
        path = self.url.path
        if name == self.url.name and self.is_object:
            return path
        return f"{path.removesuffix('/')}/{name}" if path else name

    @property
    def is_object(self) -> bool:
        """True if the URL is that of an object and not of a prefix. Raises ``StoreError``."""
        if self._is_object is None:
            self._is_object = not self.url.is_folder and (self.url.scheme in WEB or self._exists(self.url.path))
        return self._is_object

    def _exists(self, key: str) -> bool:
        try:
            self.find(key)
        except StoreError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    def find(self, key: str) -> Version:
        """Returns the version of an object. Raises ``StoreError``, in particular if there is none."""
        import obstore

        try:
            with _errors():
                meta = obstore.head(self._store, key)
        except StoreError as error:
            if re.match("4[0-9]{2}", error.strerror or ""):
                # An answer to HEAD has no body that would say why.
                with _errors():
                    obstore.get(self._store, key, options={"range": (0, 1)})
            raise
        return self._version(meta)

    def list(self) -> Iterator[tuple[str, Version] | tuple[str, StoreError]]:
        """Yields the name of each object below the prefix, with its version. Raises ``StoreError``.

        obstore lists no page in which a key is not a path, such as ``a//b``. Then each folder is listed alone, and one
        that has such a key is yielded with the error.
        """
        import obstore

        prefix = self.url.path.removesuffix("/")
        start = len(prefix) + 1 if prefix else 0
        found = []
        try:
            with _errors():
                for page in obstore.list(self._store, prefix or None, chunk_size=PAGE):
                    found += [(meta["path"][start:], self._version(meta)) for meta in page]
        except StoreError as error:
            if error.errno != errno.EINVAL:
                raise
            yield from self._list_folders(prefix, start)
        else:
            yield from found

    def _list_folders(self, prefix: str, start: int) -> Iterator[tuple[str, Version] | tuple[str, StoreError]]:
        import obstore

        folders = [prefix]
        while folders:
            folder = folders.pop()
            try:
                with _errors():
                    listed = obstore.list_with_delimiter(self._store, folder or None)
            except StoreError as error:
                if error.errno != errno.EINVAL or folder == prefix:
                    raise
                yield folder[start:], error
                continue
            folders += listed["common_prefixes"]
            for meta in listed["objects"]:
                yield meta["path"][start:], self._version(meta)

    def read(self, key: str, offset: int, length: int, etag: str | None) -> tuple[memoryview, Version, str | None]:
        """Returns a range of an object, with the object's version and its ETag. With ``etag``, only in that version.
        Raises ``StoreError``.
        """
        import obstore

        options: GetOptions = {"range": (offset, offset + length)}
        if etag is not None:
            options["if_match"] = etag
        with _errors():
            result = obstore.get(self._store, key, options=options)
            data = memoryview(result.bytes())
            meta = result.meta
        if len(data) != length:
            raise StoreError(errno.EIO, f"{self.url.store} sent {len(data)} bytes instead of {length}")
        return data, self._version(meta), meta["e_tag"]

    @property
    def index_key(self) -> str:
        """The key of the index that is kept beside the objects. May ask the store. Raises ``StoreError``."""
        path = self.url.path.removesuffix("/")
        if self.is_object:
            folder, _, name = path.rpartition("/")
            return "/".join(filter(None, (folder, f".msd/{name}.index")))
        return "/".join(filter(None, (path, ".msd/index")))

    def read_whole(self, key: str, max_size: int) -> bytes:
        """Returns an object that is not shared. Raises ``StoreError``, also if it is larger than ``max_size``."""
        import obstore

        with _errors():
            result = obstore.get(self._store, key)
            if result.meta["size"] > max_size:
                raise StoreError(errno.EFBIG, f"{key} is larger than {max_size} bytes")
            return result.bytes().to_bytes()

    def write_whole(self, key: str, data: bytes) -> None:
        """Replaces an object that is not shared. Raises ``StoreError``."""
        import obstore

        with _errors():
            obstore.put(self._store, key, data)

    def _version(self, meta: Mapping[str, Any]) -> Version:
        # Lists have fractions of seconds that answers to other requests lack.
        modified = int(meta["last_modified"].timestamp())
        etag = meta["e_tag"]
        token = etag.removeprefix("W/").strip('"') if etag else str(modified)
        mtime_ns = max(-MAX_TIME_NS, min(modified * 10**9, MAX_TIME_NS))
        inode = _number(f"{meta['path']}\0{token}")
        return Version(self.device, inode, meta["size"], mtime_ns, mtime_ns, FILE_MODE)


def _number(text: str) -> int:
    return int.from_bytes(blake3(text.encode("utf-8", "surrogatepass")).digest(8), "big")


def _endpoint(settings: Mapping[str, str]) -> str:
    return settings.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""


def _open(url: StoreUrl, settings: Mapping[str, str]) -> Any:
    from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

    endpoint = _endpoint(settings)
    allow_http = url.scheme == "http" or endpoint.startswith("http://")
    common: dict[str, Any] = {
        "client_options": {
            "allow_http": allow_http,
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "read_timeout": timedelta(seconds=SILENCE_TIMEOUT_S),
            "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
        },
        "retry_config": {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S)},
    }
    given: dict[str, Any] = {**settings}
    if given.pop("anonymous", ""):
        given["skip_signature"] = True
    match url.scheme:
        case "s3":
            if endpoint:
                # Servers other than Amazon's expect the bucket in the path, and any region.
                given["virtual_hosted_style_request"] = False
                given["endpoint"] = endpoint
                if not ({"AWS_REGION", "AWS_DEFAULT_REGION"} & os.environ.keys()):
                    given.setdefault("region", "us-east-1")
            return S3Store(url.place, **given, **common)
        case "gs":
            return GCSStore(url.place, **given, **common)
        case "az":
            return AzureStore(url.place, **given, **common)
        case _:
            return HTTPStore.from_url(url.store, **common)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Raises the errors of obstore as ``StoreError``."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise _store_error(error) from None


def _store_error(error: Exception) -> StoreError:
    from obstore import exceptions

    text = str(error)
    status = re.search(r"status code: (\d{3})([^:\n]*)", text)
    code = re.search(r"<Code>([^<]*)</Code>", text)
    number = int(status[1]) if status is not None else 0
    if isinstance(error, FileNotFoundError) and (code is None or code[1] != "NoSuchBucket"):
        kind = errno.ENOENT
    elif isinstance(error, exceptions.PreconditionError) or number == 416:
        kind = errno.ESTALE
    elif isinstance(error, exceptions.InvalidPathError | ValueError):
        kind = errno.EINVAL
    elif _ignores_ranges(text):
        kind = errno.EIO
    else:
        kind = errno.EAGAIN
    return StoreError(kind, presentable(_words(error, number)))


def _words(error: Exception, status: int) -> str:
    """Returns what the store said, in one line."""
    text = str(error)
    if re.search(r"http://(169\.254\.169\.254|metadata\.google\.internal)[:/]", text):
        # Without credentials, obstore asks the machines of the provider for some.
        return "there are no credentials: set them in the environment or in [store], or set anonymous = true there"
    if status:
        reason = re.search(r"status code: (\d{3}[^:\n]*)", text)
        said = [re.search(f"<{tag}>([^<]*)</{tag}>", text) for tag in ("Code", "Message")]
        return ": ".join([reason[1].strip() if reason else str(status), *(match[1] for match in said if match)])
    if (no_path := re.search(r'object with invalid path: .*?Path "([^"]*)"', text)) is not None:
        return f"it has the key {no_path[1]}, which is no path"
    if _ignores_ranges(text):
        return "the server ignores ranges"
    if "kind: Timeout" in text or "timed out" in text or "TimedOut" in text:
        return "no answer in time"
    if "kind: Connect" in text:
        cause = re.search(r"ConnectionRefused|dns error|certificate|NetworkUnreachable|HostUnreachable", text)
        words = {
            "ConnectionRefused": "connection refused",
            "dns error": "unknown host",
            "certificate": "its certificate is not valid",
            "NetworkUnreachable": "network unreachable",
            "HostUnreachable": "host unreachable",
        }
        return words[cause[0]] if cause is not None else "cannot connect"
    if "kind: Decode" in text or "kind: Interrupted" in text:
        return "the connection was closed before the end of the answer"
    if "error sending request" in text:
        return "the connection was closed before an answer"
    return _first_line(error)


def _ignores_ranges(text: str) -> bool:
    return "non-partial response" in text or "Range request not supported" in text


def _first_line(error: Exception) -> str:
    return str(error).partition("\n\nDebug source")[0].replace("\n", " ")[:300] or type(error).__name__
