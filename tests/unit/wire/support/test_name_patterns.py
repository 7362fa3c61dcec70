"""Which names a pattern matches."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msd.wire.support.name_patterns import NamePatterns, literal_prefix

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
    patterns = NamePatterns([pattern])
    for end in ("", "/"):
        assert [name for name in matching.split() if not patterns.match(name + end)] == []
        assert [name for name in other.split() if patterns.match(name + end)] == []


@pytest.mark.parametrize("pattern", ["cache/", "/cache/", "**/cache/"])
def test_a_slash_at_the_end_matches_folders_only(pattern: str) -> None:
    assert NamePatterns([pattern]).match("cache/")
    assert not NamePatterns([pattern]).match("cache")
    assert NamePatterns([pattern]).match("sub/cache/") == (not pattern.startswith("/"))


def test_any_of_several_patterns_matches_a_file() -> None:
    patterns = NamePatterns(["*.tmp", "sub/x"])
    assert [name for name in ("a.tmp", "sub/x", "x") if patterns.match(name)] == ["a.tmp", "sub/x"]


def test_without_patterns_nothing_matches() -> None:
    assert not NamePatterns([]).match("")


def reference(pattern: str) -> str:
    """A regular expression for a pattern without brackets, which tries all matches of each wildcard."""
    core, regex = pattern.strip("/"), ""
    for part in re.findall(r"(?<![^/])\*\*/|(?<![^/])\*\*|\*\*|.", core):
        slash = "/" if part.endswith("/") and part != "/" else ""
        starts = not regex or regex.endswith(("/", "/)?"))
        regex += {"*": "[^/]*", "?": "[^/]", "**": ".+" if starts else ".*"}.get(part, "(?:.*/)?" if slash else part)
    return ("" if "/" in pattern.rstrip("/") else "(?:.*/)?") + regex + ("/" if pattern.endswith("/") else "/?")


@settings(max_examples=300)
@given(st.text("ab/*?", min_size=1, max_size=12), st.lists(st.text("ab/", max_size=14), max_size=20))
def test_a_wildcard_finds_every_match_although_it_is_not_tried_again(pattern: str, names: list[str]) -> None:
    patterns, regex = NamePatterns([pattern]), re.compile(reference(pattern))
    assert [name for name in names if patterns.match(name)] == [name for name in names if regex.fullmatch(name)]


@pytest.mark.parametrize(
    "pattern", ["*a*a*a*a*a*a*b", "**a**a**a**a**b", "*a*/**/*a*/**/*a*/**/*a*/**/b", "**/a/**/a/**/a/b"]
)
@pytest.mark.parametrize("name", ["a" * 255, "a/" * 500 + "a"])
def test_a_long_name_from_a_hostile_peer_is_matched_quickly(pattern: str, name: str) -> None:
    patterns = NamePatterns([pattern])
    began = time.process_time()
    assert not patterns.match(name)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        ("*.mkv", ""),
        ("photos/2024-??/*", "photos/2024-"),
        ("photos/**", "photos/"),
        ("film[1]", "film"),
        ("film [1", "film [1"),
        ("film", "film"),
    ],
)
def test_the_characters_before_the_first_wildcard(pattern: str, prefix: str) -> None:
    assert literal_prefix(pattern) == prefix
