"""What is suggested for a name that is not shared."""

from __future__ import annotations

import pytest

from msd.client.manifest.name_suggestions import suggestion

NAMES = ["a.txt", "b.txt", "dir/empty", "dir/film [1].mkv", "dir/sub/s.txt", "photos/"]


FOLDER = "it is a folder: name a file in it, or download it with a / at its end; msd list shows the shared files"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("c.txt", "did you mean 'b.txt' or 'a.txt'?"),
        ("s.txt", "did you mean 'dir/sub/s.txt'?"),
        ("other/s.txt", "did you mean 'dir/sub/s.txt'?"),
        (
            "dir",
            "it is a folder: name a file in it, or download it with a / at its end; msd list shows the shared files",
        ),
        (
            "dir/sub/",
            "it is a folder: name a file in it, or download it with a / at its end; msd list shows the shared files",
        ),
        ("photo/", "did you mean 'photos/'?"),
        ("my/photos/", "did you mean 'photos/'?"),
        ("s.*", "did you mean '**/s.*'?"),
        ("s.???", "did you mean '**/s.???'?"),
        ("film [2].mkv", "did you mean 'dir/film [1].mkv'?"),
        ("song", "msd list shows the shared files"),
    ],
)
def test_the_base_name_counts_most_and_folders_and_globs_are_explained(name: str, expected: str) -> None:
    assert suggestion(name, NAMES) == expected
