"""Which pages of a listing are refused."""

from __future__ import annotations

import pytest

from msd.client.plan import page_check
from msd.client.plan.page_check import PageChecker
from msd.wire.errors import ProtocolError, UsageError
from msd.wire.protocol.messages import Entry
from tests.listings import entry


def check(*pages: str) -> None:
    """Checks pages whose names are separated by commas."""
    checker = PageChecker()
    for page in pages:
        checker.check([entry(name) for name in page.split(",")])


@pytest.mark.parametrize(
    "names",
    [
        "a",
        "a,b,c/,c/d,c/e/",
        "a b/,ä/..b,星/...",
        "c/d/e/f,c/d/e/g,c/d/f",  # the folders above are not listed
        "a,a!,a-,a.b/c,aa",
        "a/,a/a,a/a-b/c",
        ".a/.b",
    ],
)
def test_a_list_of_paths_is_accepted_however_it_is_divided(names: str) -> None:
    check(names)
    check(*names.split(","))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("a,a/b", "^'a' is the name of a file and of a folder$"),
        ("a,a/", "^'a' is the name of a file and of a folder$"),
        ("a,a!,a!!,a!!/c", "^'a!!' is the name of a file and of a folder$"),
        ("a,a!,a-,a/b/c", "^'a' is the name of a file and of a folder$"),
        ("a/b,a/b-c/d,a/b/c", "^'a/b' is the name of a file and of a folder$"),
    ]
    + [
        (name, "cannot be the name of a shared file$")
        for name in ("/", "/a", "a//b", "a//", "..", "../a", "a/..", "a/../b", "a/../", ".", "./a", "a/./b", "a/.")
    ]
    + [
        ("a/-,a/..", r"^'a/\.\.' cannot be"),
        ("a/-,a/.", r"^'a/\.' cannot be"),
        ("a\nb", r"^'a\\nb' cannot be"),
        ("a\x1b[2J", "cannot be"),
        ("a\u202ebc", r"^'a\\u202ebc' cannot be"),
    ],
)
def test_other_lists_are_refused_however_they_are_divided(names: str, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        check(names)
    with pytest.raises(ProtocolError, match=reason):
        check(*names.split(","))


@pytest.mark.parametrize(
    "entry",
    [
        Entry(name="a/", size=1, mtime_ns=0),
        Entry(name="a/", size=0, mtime_ns=0, id=b"i" * 32),
        Entry(name="a", size=5, mtime_ns=0),
        Entry(name="a", size=0, mtime_ns=0, id=b"i" * 32),
    ],
)
def test_sizes_and_ids_that_cannot_be_are_refused(entry: Entry) -> None:
    with pytest.raises(ProtocolError, match=r"^'a/?' has an invalid size or id$"):
        PageChecker().check([entry])


def test_another_page_can_follow_in_place_of_a_refused_one() -> None:
    checker = PageChecker()
    checker.check([entry("a"), entry("b/c")])
    for refused in (["b/d", "c//"], ["b/d", "b/d/e"]):
        with pytest.raises(ProtocolError):
            checker.check([entry(name) for name in refused])
    checker.check([entry("b/d/e"), entry("c")])


def test_names_in_errors_are_short() -> None:
    with pytest.raises(ProtocolError, match=r"^'x{100}' cannot be the name of a shared file$"):
        check("x" * 4000 + "/..")


def test_an_endless_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_check, "MAX_LISTING", 1000 * (page_check.NAME_COST + 5))
    checker = PageChecker()
    for page in range(10):
        checker.check([entry(f"{page}/{number:03}") for number in range(100)])
    with pytest.raises(UsageError, match="the list of shared files is too large: select a folder or a file"):
        checker.check([entry("a")])


def test_a_deep_chain_of_names_costs_time_in_proportion_to_its_size() -> None:
    """A hostile worker lists 4,000 names, each the beginning of the next, and then many names that begin with all."""
    checker = PageChecker()
    checker.check([entry("a" * length) for length in range(1, 4001)])
    checker.check([entry("a" * 4000 + f"{number:04}") for number in range(200)])
    with pytest.raises(ProtocolError, match=r"^'aaa"):
        checker.check([entry("a" * 4000 + "/b")])
