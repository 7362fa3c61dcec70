"""MultiServer Downloader: downloads a file from several workers at once and verifies every byte.

The Python API: ``download()``, the ``Servers`` to download from, the events that it emits, and the errors that it
raises. The command ``msd`` uses the same API. Each name is imported on first use, so that commands start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msd.client.events import (
        Event,
        Progress,
        Report,
        Retried,
        Sampled,
        Started,
        Syncing,
        Waiting,
        WorkerChanged,
        WorkerProgress,
        WorkerReport,
    )
    from msd.client.operations.download import download
    from msd.wire.config.servers import Servers
    from msd.wire.errors import (
        DiskError,
        Interrupted,
        MsdError,
        NoAnswerError,
        NotAllowedError,
        NotFoundError,
        SourceError,
        UsageError,
    )

__all__ = [
    "DiskError",
    "Event",
    "Interrupted",
    "MsdError",
    "NoAnswerError",
    "NotAllowedError",
    "NotFoundError",
    "Progress",
    "Report",
    "Retried",
    "Sampled",
    "Servers",
    "SourceError",
    "Started",
    "Syncing",
    "UsageError",
    "Waiting",
    "WorkerChanged",
    "WorkerProgress",
    "WorkerReport",
    "download",
]

_EVENTS = "msd.client.events"
_ERRORS = "msd.wire.errors"
#: The modules of the names that are neither events nor errors.
_MODULES = {"download": "msd.client.operations.download", "Servers": "msd.wire.config.servers"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    is_error = name.endswith("Error") or name == "Interrupted"
    return getattr(import_module(_MODULES.get(name, _ERRORS if is_error else _EVENTS)), name)


def __dir__() -> list[str]:
    return __all__
