"""Reads ``config.toml`` and checks its keys and values.

``wire/config/settings.py`` defines the meaning of the values and their defaults. The same parsers check the
command-line flags.
"""

from __future__ import annotations

import difflib
import functools
import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msd.wire.errors import UsageError
from msd.wire.security.keys import parse_key
from msd.wire.support.presentable_names import is_presentable

#: Maximum number of workers; a snapshot lists all of them and must stay small.
MAX_WORKERS = 64
#: Maximum length of the name that a client gives itself, in characters, as in the protocol.
MAX_CLIENT_NAME = 64
#: Sizes in bytes must be below this limit so that they fit into the protocol's ``Natural`` type.
MAX_SIZE = 1 << 62
#: How similar to one of our names the name of a section must be to count as a typing error: ``brokr`` (0.91) and
#: ``shrae`` (0.8) do, the ``docker`` (0.67) and ``workspace`` (0.63) of other programs do not.
OWN_SECTION_SIMILARITY = 0.8

_PREFIXES = ("", "k", "m", "g", "t")
#: The longest time, and the units of times, in seconds.
MAX_DURATION_S = 100 * 365 * 86400
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZE = r"(?i)(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?))?b?(?:/s)?"


def read_sections(path: Path, *, may_be_foreign: bool = False) -> dict[str, Any]:
    """Returns the sections in the file at ``path``: for ``workers`` a list of tables, otherwise a table of keys.

    With ``may_be_foreign``, a file without any section of msd belongs to another program: it has no sections. A
    file that is not valid TOML may be ours, and a section with nearly one of our names is a typing error: passing over
    either of them could start the servers without keys.

    Raises ``FileNotFoundError``, and for an invalid file ``UsageError`` with the key, its value and the allowed values.
    """
    try:
        data = path.read_bytes()
        import tomllib  # Importing this takes 4 ms, which most downloads save: they have no configuration file.

        table = tomllib.loads(data.decode("utf-8-sig"))
        return {} if may_be_foreign and not any(map(_may_be_own, table.items())) else _checked(table)
    except FileNotFoundError:
        raise
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: for example, a number with 5000 digits
        if may_be_foreign and isinstance(error, IsADirectoryError):
            return {}
        if may_be_foreign and isinstance(error, PermissionError):
            raise UsageError(f"{path.absolute()} cannot be read: run msd in another folder") from None
        if isinstance(error, OSError | UnicodeDecodeError):
            raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        raise UsageError(f"{path}: not valid TOML: {error}") from None


def _may_be_own(item: tuple[str, Any]) -> bool:
    """True if a name at the top of a file is that of a section of msd, or nearly."""
    name, value = item
    is_near = difflib.get_close_matches(name.lower(), _KEYS, n=1, cutoff=OWN_SECTION_SIMILARITY)
    return name in _KEYS or (isinstance(value, dict | list) and bool(is_near))


def _checked(table: dict[str, Any]) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for name, value in table.items():
        _check_known(name, _KEYS, "section")
        expected, header = (list, "[[workers]]") if name == "workers" else (dict, f"[{name}]")
        if not isinstance(value, expected):
            raise UsageError(f"{name} must be written as {header}")
        if isinstance(value, list):
            sections[name] = [_section(name, f"{header} {n}: ", item) for n, item in enumerate(value, 1)]
        else:
            sections[name] = _section(name, f"{header} ", value)
    workers = sections.get("workers", [])
    if len(workers) > MAX_WORKERS:
        raise UsageError(f"{len(workers)} [[workers]] tables: at most {MAX_WORKERS} are allowed")
    for number, worker in enumerate(workers, 1):
        if "port" not in worker:
            raise UsageError(f"[[workers]] {number}: port is missing: add the port of this worker")
    return sections


def _section(name: str, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where}must be a table")
    parsed = {}
    for key, raw in value.items():
        _check_known(key, _KEYS[name], "key", f" in {where.rstrip(': ')}")
        try:
            parsed[key] = _KEYS[name][key](raw)
        except ValueError as allowed:
            # Do not quote what may be a secret.
            given = "" if name == "store" else f" = {raw!r}"
            raise UsageError(f"{where}{key}{given}: must be {allowed}") from None
    return parsed


def _check_known(name: str, names: Mapping[str, object], kind: str, place: str = "") -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(names)}"
        raise UsageError(f"unknown {kind} {name!r}{place}{hint}")


# Parsers, one for each kind of value. Each takes a TOML value and raises ``ValueError`` with a description of the
# allowed values if the value is invalid.


def parse_text(value: Any) -> str:
    """Parses a name, path or pattern. Raises ``ValueError``."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a non-empty string")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    try:
        return tuple(map(parse_text, value if isinstance(value, list) else [value]))
    except ValueError as allowed:
        raise ValueError(f"{allowed}, or a list of them") from None


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _host(value: Any) -> str:
    host = parse_text(value)
    # Host names and IPv4 addresses contain no colon, so this must be an IPv6 address.
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host.strip("[]")))
        except ValueError:
            raise ValueError("a host name or an IP address, without a port") from None
    return host


def _port(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 65535:
        raise ValueError("a port from 1 to 65535")
    return value


def parse_interval(value: Any, minimum: float = 0.05) -> float:
    """Parses a number of seconds, by default between two of server 5's snapshots. Raises ``ValueError``."""
    if type(value) not in (int, float) or not minimum <= value <= 86400:
        raise ValueError(f"a number of seconds from {minimum} to 86400")
    return float(value)


def _security(value: Any) -> str:
    if value not in ("none", "curve"):
        raise ValueError('"none" or "curve", or not set')
    return str(value)


def _http_url(value: Any) -> str:
    text = parse_text(value)
    if not re.fullmatch(r"https?://[^\s@?#]+", text):
        raise ValueError("a URL such as https://s3.example.com")
    return text


def _key(value: Any) -> bytes:
    return parse_key(parse_text(value))


def _client_name(value: Any) -> str:
    text = parse_text(value)
    if len(text) > MAX_CLIENT_NAME or not is_presentable(text):
        raise ValueError(f"at most {MAX_CLIENT_NAME} characters that can be printed")
    return text


def _memory(value: Any) -> int:
    size = parse_size(value)
    if size < 4 << 20:
        raise ValueError('at least "4MiB"')
    return size


def parse_size(value: Any) -> int:
    """Parses a size in bytes, or a rate in bytes a second: a number, or a string such as ``"40MiB"``, ``"1.5 GB"``,
    ``"500k"`` or ``"25MiB/s"``. Raises ``ValueError``.
    """
    size: float = value if type(value) is int else -1
    if isinstance(value, str) and (match := re.fullmatch(_SIZE, value.strip())):
        number, prefix, binary = match.groups(default="")
        size = float(number) * (1024 if binary else 1000) ** _PREFIXES.index(prefix.lower())
    if not 0 <= size < MAX_SIZE or 0 < size < 1:
        raise ValueError('a number of bytes, such as 1048576 or "40MiB"')
    return int(size)


def parse_duration(value: Any) -> float:
    """Parses a time such as ``"90m"``, ``"12h"`` or ``"7d"``, and returns its seconds. Raises ``ValueError``."""
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", value.strip()) if isinstance(value, str) else None
    seconds = float(int(match[1]) * _SECONDS[match[2]]) if match is not None else 0.0
    if not 0 < seconds <= MAX_DURATION_S:
        raise ValueError("a time such as 90m, 12h or 7d")
    return seconds


_KEYS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "share": {"path": _texts, "exclude": _texts, "hidden": _flag, "follow_links": _flag, "keep_index": _flag},
    "broker": {
        "host": _host,
        "status_port": _port,
        "control_port": _port,
        "metrics_port": _port,
        "access_log": parse_text,
        "interval": parse_interval,
        # A limit of less than a second could restart healthy workers between two heartbeats.
        "hang_limit": functools.partial(parse_interval, minimum=1),
        "security": _security,
        "keys": parse_text,
        "server_key": _key,
        "authority": parse_text,
    },
    "workers": {"port": _port, "host": _host, "rate": parse_size},
    "store": {
        "endpoint": _http_url,
        "region": parse_text,
        "access_key_id": parse_text,
        "secret_access_key": parse_text,
        "session_token": parse_text,
        "anonymous": lambda value: "true" if _flag(value) else "",
        "cache": parse_size,
    },
    "client": {"memory": _memory, "max_rate": parse_size, "key": parse_text, "name": _client_name},
}
