"""Checks the paths to share, gives each its name, and writes them to a file for the indexer and the workers.

Does not look at the files below them: see ``workers/source/scan.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from msd.wire.config.settings import Config
from msd.wire.config.store_urls import StoreUrl
from msd.wire.errors import DiskError, UsageError
from msd.wire.protocol.child_messages import SHARE_FILE, ShareSettings
from msd.wire.support.presentable_names import is_presentable, presentable


def share_settings(config: Config) -> ShareSettings:
    """Returns what ``config`` shares. Raises ``MsdError`` if a path is missing or two paths have one name."""
    if not config.paths:
        raise UsageError("nothing to share: give a file or folder as PATH, or [share] path in config.toml")
    for path in config.paths:
        if isinstance(path, Path) and not _exists(path):
            hint = "check the path"
            if config.share_file is not None:
                hint = f"[share] path in {config.share_file} names it: change it, or run msd serve PATH"
            raise UsageError(f"{path}: no such file or folder to share: {hint}")
    paths = [Path(os.path.abspath(path)) if isinstance(path, Path) else path for path in config.paths]
    roots: dict[str, Path | StoreUrl] = {}
    for path in paths:
        name = path.name if len(paths) > 1 else ""
        if name in roots:
            raise UsageError(f"{roots[name]} and {path} would both be shared as {name}: rename one of them")
        if len(paths) > 1 and not (name and is_presentable(name)):
            raise UsageError(f"{presentable(str(path))}: its name cannot be shared: rename it")
        roots[name] = path
    if config.keep_index and not any(isinstance(root, StoreUrl) for root in roots.values()):
        raise UsageError("--keep-index is for object stores: the index of local files is kept on this machine anyway")
    return ShareSettings(
        roots={name: os.fsencode(path) for name, path in roots.items() if isinstance(path, Path)},
        stores={name: str(url) for name, url in roots.items() if isinstance(url, StoreUrl)},
        store_settings=config.store,
        cache=config.store_cache,
        keep_index=config.keep_index,
        hidden=config.hidden,
        follow_links=config.follow_links,
        excludes=config.excludes,
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        hint = (
            "check the permissions of the folders above it" if isinstance(error, PermissionError) else "check the path"
        )
        raise DiskError(f"{path}: {error.strerror}: {hint}") from None


def write_share(folder: Path, share: ShareSettings) -> None:
    """Writes ``share`` to the catalogue's folder ``folder``. Raises ``DiskError``."""
    try:
        # It may hold the secret key of a store. The folder is private, too.
        fd = os.open(folder / SHARE_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(share))
    except OSError as error:
        raise DiskError(
            f"{folder}: cannot write what is shared: {error.strerror}: free some space there,"
            " or set XDG_RUNTIME_DIR to another folder"
        ) from None
