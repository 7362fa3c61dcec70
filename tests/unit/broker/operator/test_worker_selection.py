"""The words of ``msd toggle``: numbers, names, ``all``, and any other word."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from msd.broker.operator.worker_selection import check_words, select_workers
from msd.wire.errors import UsageError
from msd.wire.protocol.messages import WorkerStatus
from tests.unit.snapshots import snapshot, with_worker

#: Workers 1 to 3 of the servers, and two that have joined.
JOINED = with_worker(with_worker(snapshot(), 4, number=6, name="attic", host="10.0.0.7"), 3, name="2", host="10.0.0.8")


def selected(words: Sequence[str], known: Sequence[WorkerStatus]) -> list[int]:
    check_words(words)
    return [worker.number for worker in select_workers(words, known)]


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["2"], [2]),
        (["3", "1"], [3, 1]),
        (["1", "3", "1", "03"], [1, 3]),
        (["all"], [1, 2, 3, 4]),
        (["2", "all"], [1, 2, 3, 4]),
    ],
)
def test_words_select_workers(words: list[str], numbers: list[int]) -> None:
    assert selected(words, snapshot().workers) == numbers


@pytest.mark.parametrize(
    ("words", "numbers"), [(["attic"], [6]), (["attic", "1", "6"], [6, 1]), (["2"], [2]), (["all"], [1, 2, 3, 6])]
)
def test_a_name_selects_a_worker_unless_it_is_the_number_of_another_one(words: list[str], numbers: list[int]) -> None:
    assert selected(words, JOINED.workers) == numbers


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "^which workers.* or all for every worker$"),
        (["1", "two words"], "^'two words' is not a worker: give numbers or names, such as 1 3, or all for every"),
        ([""], "^'' is not a worker"),
        (["²"], "^'²' is not a worker"),
        (["x" * 65], "is not a worker"),
        (["one"], "^no worker one: the workers are numbered 1 to 4$"),
        (["9"], "^no worker 9: the workers are numbered 1 to 4$"),
        (["1", "0"], "^no worker 0"),
    ],
)
def test_any_other_word_is_a_usage_error(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        selected(words, snapshot().workers)


@pytest.mark.parametrize("word", ["4", "Attic"])
def test_the_error_lists_the_numbers_and_the_names(word: str) -> None:
    message = f"^no worker {word}: the workers are numbered 1 to 3, 6, those that have joined are 2, attic$"
    with pytest.raises(UsageError, match=message):
        selected([word], JOINED.workers)


def test_before_a_worker_has_joined_the_error_says_so() -> None:
    with pytest.raises(UsageError, match=r"^no worker 1: no worker has joined yet$"):
        selected(["1"], [])
    assert selected(["all"], []) == []
