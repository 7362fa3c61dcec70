"""The words of ``msd toggle``: numbers, ``all``, and what is neither."""

from __future__ import annotations

import pytest

from msd.broker.operator.worker_selection import parse_numbers, select_workers
from msd.wire.errors import UsageError


@pytest.mark.parametrize(
    ("words", "selected"),
    [
        (["2"], [2]),
        (["3", "1"], [3, 1]),
        (["1", "3", "1"], [1, 3]),
        (["all"], [1, 2, 3, 4]),
        (["2", "all"], [1, 2, 3, 4]),
    ],
)
def test_words_select_workers(words: list[str], selected: list[int]) -> None:
    assert select_workers(parse_numbers(words), [1, 2, 3, 4]) == selected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "^which workers.* or all for every worker$"),
        (["one"], "^'one' is not a worker: give numbers, such as 1 3, or all for every worker$"),
        (["1", "2.5"], "^'2.5' is not a worker"),
        ([""], "^'' is not a worker"),
        (["²"], "^'²' is not a worker"),
        (["9"], "^no worker 9: the workers are numbered 1 to 4$"),
        (["1", "0"], "^no worker 0"),
    ],
)
def test_any_other_word_is_a_usage_error(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        select_workers(parse_numbers(words), [1, 2, 3, 4])
