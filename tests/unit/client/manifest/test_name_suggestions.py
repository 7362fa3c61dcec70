"""What is suggested for a name that is not shared."""

from __future__ import annotations

import pytest

from msd.client.manifest.name_suggestions import suggestion, with_suggestion
from msd.wire.errors import NotFoundError

NAMES = ["a.txt", "b.txt", "dir/empty", "dir/film [1].mkv", "dir/sub/s.txt", "photos/"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("c.txt", "did you mean 'b.txt' or 'a.txt'?"),
        ("s.txt", "did you mean 'dir/sub/s.txt'?"),
        ("other/s.txt", "did you mean 'dir/sub/s.txt'?"),
        ("photo/", "did you mean 'photos/'?"),
        ("my/photos/", "did you mean 'photos/'?"),
        ("s.*", "did you mean '**/s.*'?"),
        ("s.???", "did you mean '**/s.???'?"),
        ("film [2].mkv", "did you mean 'dir/film [1].mkv'?"),
        ("song", "msd list shows the shared files"),
    ],
)
def test_the_base_name_counts_most_and_globs_are_explained(name: str, expected: str) -> None:
    assert suggestion(name, NAMES) == expected


@pytest.mark.parametrize(
    ("name", "shared", "error"),
    [
        ("Sta.mp4", ["Star.mp4", "Moon.avi"], "'Sta.mp4' is not shared; did you mean 'Star.mp4'?"),
        ("Sta.mp4", ["x"], "'Sta.mp4' is not shared; msd list shows the shared files"),
        (
            None,
            ["x"],
            "no shared file is named 'Sta.mp4': give the name of a shared file; msd list shows the shared files",
        ),
    ],
)
def test_the_error_for_a_file_that_is_not_shared_suggests_similar_names(
    name: str | None, shared: list[str], error: str
) -> None:
    not_shared = NotFoundError("'Sta.mp4' is not shared", name="Sta.mp4", names=shared)
    assert str(with_suggestion(not_shared, name)) == error


@pytest.mark.parametrize("name", ["dir/sub", "dir/sub/"])
def test_a_folder_is_called_a_folder(name: str) -> None:
    error = with_suggestion(NotFoundError(f"{name!r} is not shared", name=name, names=NAMES), name)
    assert str(error) == f"{name!r} is a folder: name a file in it, or download it as 'dir/sub/'"


def test_an_error_without_a_name_gets_no_suggestion() -> None:
    error = NotFoundError("no file is shared")
    assert with_suggestion(error, "Star.mp4") is error
