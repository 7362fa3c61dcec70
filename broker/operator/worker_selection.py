"""Which workers the words of ``msd toggle`` select. Pure.

Sends no orders; ``broker/cli/commands.py`` does.
"""

from __future__ import annotations

from collections.abc import Sequence

from msd.wire.errors import UsageError

ALL = "all"


def parse_numbers(words: Sequence[str]) -> list[int] | None:
    """Returns the worker numbers that the user typed, each once; None means all workers. Raises ``UsageError``."""
    if not words:
        raise UsageError("which workers? give their numbers, such as 1 3, or all for every worker")
    for word in words:
        if word != ALL and not (word.isascii() and word.isdigit()):
            raise UsageError(f"{word!r} is not a worker: give numbers, such as 1 3, or all for every worker")
    return None if ALL in words else [*dict.fromkeys(map(int, words))]


def select_workers(numbers: Sequence[int] | None, known: Sequence[int]) -> Sequence[int]:
    """Returns the workers to toggle. ``known`` lists the workers of server 5. Raises ``UsageError`` for any other
    number, so that no worker is toggled if one number is wrong.
    """
    if numbers is None:
        return known
    for number in numbers:
        if number not in known:
            raise UsageError(f"no worker {number}: the workers are numbered 1 to {len(known)}")
    return numbers
