"""Which workers the words of ``msd toggle`` select. Pure.

Sends no orders; ``broker/cli/commands.py`` does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msd.broker.status.worker_names import known_workers
from msd.wire.errors import UsageError
from msd.wire.protocol.messages import WorkerStatus

ALL = "all"
_WORD = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check_words(words: Sequence[str]) -> None:
    """Raises ``UsageError`` if a word can be neither the number nor the name of a worker."""
    if not words:
        raise UsageError("which workers? give their numbers or names, such as 1 3, or all for every worker")
    for word in words:
        if not _WORD.fullmatch(word):
            raise UsageError(f"{word!r} is not a worker: give numbers or names, such as 1 3, or all for every worker")


def select_workers(words: Sequence[str], known: Sequence[WorkerStatus]) -> Sequence[WorkerStatus]:
    """Returns the workers to toggle, each once. ``known`` are the workers of server 5. Raises ``UsageError`` for any
    other word, so that no worker is toggled if one word is wrong.
    """
    if ALL in words:
        return known
    return [*{worker.number: worker for worker in (_find(word, known) for word in words)}.values()]


def _find(word: str, known: Sequence[WorkerStatus]) -> WorkerStatus:
    """Returns the worker with that number or else that name."""
    for worker in known:
        if word.isdigit() and word.lstrip("0") == str(worker.number):
            return worker
    for worker in known:
        if word == worker.name:
            return worker
    others = known_workers([worker.number for worker in known])
    names = ", ".join(worker.name for worker in known if worker.host)
    raise UsageError(f"no worker {word}: {others}{f', those that have joined are {names}' if names else ''}")
