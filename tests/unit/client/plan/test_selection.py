"""Which files NAMEs and excludes select, and which parts of the listing they need."""

from __future__ import annotations

import pytest

from msd.client.plan.selection import EVERYTHING, Range, Selection, is_glob, normalized
from msd.wire.errors import MsdError, NotFoundError, UsageError

LISTING = [
    "film [1].mkv",
    "film 1.mkv",
    "notes",
    "photos/",
    "photos/2023/",
    "photos/2023/a.jpg",
    "photos/2024/",
    "photos/2024/b.jpg",
    "photos/2024/cache/",
    "photos/2024/cache/b.jpg",
    "photos/index",
    "photos-old/",
    "photos-old/a.jpg",
]
LISTING.sort()


def selected(*names: str, excludes: tuple[str, ...] = (), exact: tuple[str, ...] = ()) -> str:
    """The selected names of the listing, separated by commas."""
    selection = Selection(names, excludes, exact)
    return ", ".join(name for name in LISTING if selection.selects(name))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("film.mkv", False),
        ("films/film.mkv", False),
        ("a film [1", False),
        ("photos/2024/", False),
        ("*.mkv", True),
        ("photos/202?/", True),
        ("film [1].mkv", True),
        ("**/*.jpg", True),
    ],
)
def test_a_name_with_wildcards_looks_like_a_glob(name: str, expected: bool) -> None:
    assert is_glob(name) is expected


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "..", "../film", "a/../b", "a//b", "a//", ".", "./a", "a\x1b[2J", "x" * 4097]
)
def test_a_name_that_no_shared_file_can_have_is_an_error(name: str) -> None:
    with pytest.raises(NotFoundError, match=r"cannot be the name of a shared file: msd list shows the shared files$"):
        is_glob(name)
    with pytest.raises(NotFoundError):
        Selection(["a", name])


def test_an_empty_name_is_an_error() -> None:
    with pytest.raises(UsageError, match="the name is empty"):
        is_glob("")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("notes", "notes"),
        ("photos/2024/b.jpg", "photos/2024/b.jpg"),
        ("photos/2023", "photos/2023/, photos/2023/a.jpg"),
        ("photo", ""),
        ("photos/2023/", "photos/2023/, photos/2023/a.jpg"),
        ("*.mkv", "film 1.mkv, film [1].mkv"),
        ("film [1].mkv", "film 1.mkv"),
        ("*.jpg", ""),
        ("*/*.jpg", "photos-old/a.jpg"),
        ("**/a.jpg", "photos-old/a.jpg, photos/2023/a.jpg"),
        ("photos/*/", "photos/2023/, photos/2023/a.jpg, photos/2024/, photos/2024/b.jpg, photos/2024/cache/,"
            " photos/2024/cache/b.jpg"),
        ("photos/*3", "photos/2023/, photos/2023/a.jpg"),
        ("photos/**/cache", "photos/2024/cache/, photos/2024/cache/b.jpg"),
        ("**", ", ".join(LISTING)),
        ("*", ", ".join(LISTING)),
    ],
)  # fmt: skip
def test_a_name_selects_a_file_a_folder_or_what_a_glob_matches(name: str, expected: str) -> None:
    assert selected(name) == expected


def test_the_name_of_a_shared_file_or_folder_is_not_taken_for_a_glob() -> None:
    assert selected("film [1].mkv", exact=("film [1].mkv",)) == "film [1].mkv"
    selection = Selection(["photos [1]/"], exact=["photos [1]/"])
    assert selection.selects("photos [1]/a")
    assert not selection.selects("photos 1/a")


def test_excludes_leave_out_files_and_folders_as_they_do_when_sharing() -> None:
    assert selected("photos/", excludes=("cache/", "index")) == (
        "photos/, photos/2023/, photos/2023/a.jpg, photos/2024/, photos/2024/b.jpg"
    )
    assert selected("**/*.jpg", excludes=("photos",)) == "photos-old/a.jpg"
    assert selected("**/*.jpg", excludes=("/photos/2024",)) == "photos-old/a.jpg, photos/2023/a.jpg"
    assert selected("photos/*/", excludes=("/photos",)) == ""
    assert selected("*", excludes=("*",)) == ""


def test_excludes_do_not_apply_to_what_a_name_names() -> None:
    assert selected("notes", excludes=("notes",)) == "notes"
    assert selected("photos/2024/cache/", excludes=("cache", "2024")) == "photos/2024/cache/, photos/2024/cache/b.jpg"
    assert selected("photos/", "photos/2024/b.jpg", excludes=("2024", "2023", "index")) == "photos/, photos/2024/b.jpg"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["photos/"], [Range("photos/")]),
        (["notes"], [Range("notes", is_file=True), Range("notes/")]),
        (["photos/202?/*.jpg"], [Range("photos/202")]),
        (["**/*.jpg", "notes", "photos/"], [Range("")]),
        (["z/", "photos/", "photos/2024/", "photos/a", "photos-old/", "notes", "notes"],
            [Range("notes", is_file=True), Range("notes/"), Range("photos-old/"), Range("photos/"), Range("z/")]),
        (["photos", "photos/"], [Range("photos", is_file=True), Range("photos/")]),
        (["photo*", "photo"], [Range("photo")]),
    ],
)  # fmt: skip
def test_only_the_parts_of_the_listing_that_can_be_selected_are_requested(
    names: list[str], expected: list[Range]
) -> None:
    assert Selection(names).ranges == expected


def errors(selection: Selection) -> list[str]:
    assert [error.name for error in selection.not_found(["a"])] == [error.name for error in selection.not_found([])]
    return [str(error) for error in selection.not_found([])]


def test_each_name_that_selects_nothing_is_an_error() -> None:
    names = ["film", "photos/", "photos", "video/", "*.mkv", "*.jpg", "photos/2023/*.jpg", "photos/index"]
    selection = Selection(names)
    for name in LISTING:
        selection.selects(name)
    hint = ": msd list shows the shared files"
    expected = [f"'film' is not shared{hint}", f"'video/' is not shared{hint}", f"no shared file matches '*.jpg'{hint}"]
    assert errors(selection) == expected
    error: MsdError = selection.not_found(["a", "b"])[0]
    assert isinstance(error, NotFoundError)
    assert (error.name, error.names) == ("film", ["a", "b"])


def test_the_error_about_a_glob_names_the_excludes() -> None:
    selection = Selection(["*.mkv"], ["film*"])
    for name in LISTING:
        assert not selection.selects(name)
    assert errors(selection) == ["no shared file matches '*.mkv', or all are excluded: msd list shows the shared files"]


@pytest.mark.parametrize(
    ("name", "expected"), [(".", "/"), ("./", "/"), ("/", "/"), ("./photos/", "photos/"), ("a.b", "a.b"), ("..", "..")]
)
def test_a_name_may_begin_with_the_current_folder(name: str, expected: str) -> None:
    assert normalized(name) == expected


def test_everything_is_listed_at_once_and_selected_but_for_excluded_files() -> None:
    selection = Selection([EVERYTHING, "notes", "photos/*.jpg"], ["2024/"])
    assert selection.ranges == [Range("")]
    assert selected(EVERYTHING, excludes=("2024/", "*.mkv")) == (
        "notes, photos-old/, photos-old/a.jpg, photos/, photos/2023/, photos/2023/a.jpg, photos/index"
    )
    assert [str(error) for error in Selection([EVERYTHING]).not_found([])] == ["no files are shared"]
    selection = Selection([EVERYTHING], ["*"])
    assert not any(map(selection.selects, LISTING))
    assert selection.not_found([]) == []
