"""How workers are called: by number, and by name where that is not the number."""

from __future__ import annotations

import pytest

from msd.broker.status.worker_names import known_workers, list_numbers, worker_label


@pytest.mark.parametrize(("name", "label"), [("", "5"), ("5", "5"), ("attic", "5 (attic)"), ("7", "5 (7)")])
def test_a_label_contains_a_name_that_is_not_the_number(name: str, label: str) -> None:
    assert worker_label(5, name) == label


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([3], "3"), ([1, 2, 3, 4], "1 to 4"), ([1, 2, 5], "1, 2, 5"), ([2, 4, 6, 7, 8], "2, 4, 6 to 8")],
)
def test_numbers_that_follow_one_another_are_a_range(numbers: list[int], text: str) -> None:
    assert list_numbers(numbers) == text


def test_without_workers_an_error_says_that_none_has_joined() -> None:
    assert known_workers([]) == "no worker has joined yet"
    assert known_workers([1, 3]) == "the workers are numbered 1, 3"
