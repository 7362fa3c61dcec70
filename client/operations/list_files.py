"""``msd list``: fetches the list of shared files. Downloads no file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from msd.client.events import OnEvent
from msd.client.manifest.listing import is_file, list_catalogues, shared_file_or_folder
from msd.client.manifest.shared_files import SharedFiles
from msd.client.network.pool import ConnectionPool
from msd.client.network.session import Session
from msd.client.plan.selection import EVERYTHING, is_glob, normalized
from msd.wire.config.servers import Servers
from msd.wire.errors import NotFoundError

#: How long to wait for each answer.
ANSWER_TIMEOUT_S = 5.0


def list_files(
    servers: Servers, names: Sequence[str] = (), timeout: float = ANSWER_TIMEOUT_S
) -> tuple[SharedFiles, list[NotFoundError]]:
    """Returns the shared files and folders that ``names`` select, by default all, and an error for each name that
    selects nothing.

    Raises ``NoAnswerError`` after ``timeout`` seconds without an answer, and other ``MsdError``s.
    """
    with closing(ConnectionPool(servers, download=False, timeout=timeout)) as pool:
        files, errors = list_catalogues(Session(pool), [*map(normalized, names)] or [EVERYTHING])
        return files, errors if names else []


def shared_name(servers: Servers, name: str, timeout: float = ANSWER_TIMEOUT_S) -> str:
    """Returns the name of the shared file or folder that ``name`` means: with ``/`` at its end if it is a folder.

    Raises ``NotFoundError`` if neither is shared, ``NoAnswerError`` after ``timeout`` seconds without an answer, and
    other ``MsdError``s.
    """
    with closing(ConnectionPool(servers, download=False, timeout=timeout)) as pool:
        return shared_file_or_folder(Session(pool), name)


def looks_like_several(servers: Servers, name: str, *, timeout: float | None, on_event: OnEvent) -> bool:
    """True if ``name`` is a glob, and not the name of a file that looks like one. Waits for the servers like a
    download. Raises ``MsdError``.
    """
    if not is_glob(normalized(name)):
        return False
    pool = ConnectionPool(servers, download=True, is_counted=False, timeout=timeout, on_event=on_event)
    with closing(pool):
        return not is_file(Session(pool), normalized(name))
