"""MultiServer Downloader: downloads files from several workers at once and verifies every byte.

The Python API: ``download()`` for one file, ``download_files()`` for several files and folders, the ``Servers`` to
download from, the events that a download emits, and the errors that it raises. Each name is imported on first use, so
that commands start fast.
"""

from __future__ import annotations

#: Type checkers take it for True. Importing ``typing`` would take longer than all the rest of this module, and every
#: command begins here: an interrupt meanwhile could not be caught.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from msd.client.events import (
        Event,
        FileChanged,
        FileCounts,
        FileProgress,
        FileResult,
        FilesProgress,
        FilesReport,
        FilesStarted,
        Hashing,
        Outcome,
        Progress,
        Report,
        Retried,
        Started,
        Syncing,
        Totals,
        Waiting,
        Warned,
        WorkerChanged,
        WorkerProgress,
        WorkerReport,
    )
    from msd.client.operations.download import download
    from msd.client.operations.download_files import download_files
    from msd.wire.config.servers import Servers
    from msd.wire.errors import (
        DiskError,
        Interrupted,
        MsdError,
        NoAnswerError,
        NotAllowedError,
        NotFoundError,
        OutputClosedError,
        SourceError,
        UsageError,
    )

__all__ = [
    "DiskError",
    "Event",
    "FileChanged",
    "FileCounts",
    "FileProgress",
    "FileResult",
    "FilesProgress",
    "FilesReport",
    "FilesStarted",
    "Hashing",
    "Interrupted",
    "MsdError",
    "NoAnswerError",
    "NotAllowedError",
    "NotFoundError",
    "Outcome",
    "OutputClosedError",
    "Progress",
    "Report",
    "Retried",
    "Servers",
    "SourceError",
    "Started",
    "Syncing",
    "Totals",
    "UsageError",
    "Waiting",
    "Warned",
    "WorkerChanged",
    "WorkerProgress",
    "WorkerReport",
    "download",
    "download_files",
]

#: The modules that define these names, the fastest to import first.
_MODULES = (
    "msd.wire.errors",
    "msd.client.events",
    "msd.wire.config.servers",
    "msd.client.operations.download",
    "msd.client.operations.download_files",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        for module in map(import_module, _MODULES):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
