"""The patterns of ``--exclude``."""

from __future__ import annotations

import pytest

from msd.workers.source.exclude import Excludes

CASES = [
    # A pattern without a slash matches a base name in any folder.
    ("*.tmp", "a.tmp sub/b.tmp sub/sub/.tmp", "a.tmpx tmp a.tmp/x"),
    ("film", "film sub/film", "films film.mp4 a-film"),
    ("?.bin", "a.bin sub/ü.bin", "ab.bin .bin"),
    ("[a-c]x", "ax sub/cx", "dx a-x"),
    ("[!a-c]x", "dx", "ax /x sub/ax"),
    ("[]]", "]", "[ a"),
    ("[!]]", "a [", "]"),
    ("[]", "[] sub/[]", "[ ]"),
    ("[!]", "[!]", "a !"),
    ("[^]", "[^]", "a ^"),
    ("[c-a]", "", "a b c -"),
    ("[!c-a]", "a b", ""),
    ("[a-]x", "ax -x", "bx"),
    (r"[\^&&]", r"\ ^ &", "a"),
    ("a[", "a[ sub/a[", "a ab"),
    ("**", "a sub/b", ""),
    (".*", ".env sub/.git", "a.b"),
    # A pattern with a slash at its start or inside matches the name from its first folder on.
    ("/film", "film", "sub/film"),
    ("sub/*.tmp", "sub/a.tmp", "a.tmp x/sub/a.tmp sub/x/a.tmp"),
    ("sub/**", "sub/a sub/x/b", "sub a x/sub/a"),
    ("**/cache/x", "cache/x a/cache/x a/b/cache/x", "mycache/x cache/y"),
    ("a/**/b", "a/b a/x/b a/x/y/b", "ab a/xb x/a/b"),
    ("a.c", "a.c", "abc"),
    ("(x|y)+", "(x|y)+", "x y xy"),
]


@pytest.mark.parametrize(("pattern", "matching", "other"), CASES)
def test_a_pattern_matches_names_as_in_a_gitignore_file(pattern: str, matching: str, other: str) -> None:
    excludes = Excludes([pattern])
    for is_folder in (False, True):
        assert [name for name in matching.split() if not excludes.match(name, is_folder=is_folder)] == []
        assert [name for name in other.split() if excludes.match(name, is_folder=is_folder)] == []


@pytest.mark.parametrize("pattern", ["cache/", "/cache/", "**/cache/"])
def test_a_slash_at_the_end_matches_folders_only(pattern: str) -> None:
    assert Excludes([pattern]).match("cache", is_folder=True)
    assert not Excludes([pattern]).match("cache", is_folder=False)
    assert Excludes([pattern]).match("sub/cache", is_folder=True) == (not pattern.startswith("/"))


def test_any_of_several_patterns_excludes_a_file() -> None:
    excludes = Excludes(["*.tmp", "sub/x"])
    assert [name for name in ("a.tmp", "sub/x", "x") if excludes.match(name, is_folder=False)] == ["a.tmp", "sub/x"]


def test_without_patterns_nothing_is_excluded() -> None:
    assert not Excludes([]).match("", is_folder=False)
