"""Where a link may stand, and what it goes with."""

from __future__ import annotations

import io
from typing import Any

import pytest

from msd.client.cli.link_argument import SCHEME, VARIABLE, find_link, link_error, link_refusals
from msd.wire.config import links
from msd.wire.config.cli_flags import ServerFlags
from msd.wire.errors import NotAllowedError, UsageError

LINK = "msd://host/film"
NO_FLAGS = ServerFlags()


def test_the_scheme_is_that_of_links() -> None:
    assert SCHEME == links.SCHEME


def test_a_link_is_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_link([LINK], NO_FLAGS, {VARIABLE: "msd://other/"}) == LINK
    assert find_link(["film"], NO_FLAGS, {VARIABLE: LINK}) is None
    assert find_link([], NO_FLAGS, {}) is None


def test_a_link_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"  {LINK}\nmore\n"))
    assert find_link(["-"], NO_FLAGS, {}) == LINK


def test_a_link_in_the_environment_counts_without_names_and_places() -> None:
    assert find_link([], NO_FLAGS, {VARIABLE: LINK}) == LINK
    assert find_link([], ServerFlags(server5="host"), {VARIABLE: LINK}) is None


def test_a_link_stands_alone() -> None:
    with pytest.raises(UsageError, match="stands alone"):
        find_link([LINK, "film"], NO_FLAGS, {})


@pytest.mark.parametrize("flags", [{"host": "h"}, {"ports": (1, 2)}, {"server5": "h"}, {"server_key": "k"}])
def test_a_link_says_where_the_servers_are(flags: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="leave out -a, -p, --server5 and --server-key"):
        find_link([LINK], ServerFlags(**flags), {})


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "server 5 at h:5 does not admit this key: ask the operator to run msd keys admit",
            "server 5 at h:5 refuses this link: it has expired or was revoked; ask for another one",
        ),
        (
            "server 5 at h:5 and worker 1 at h:1 do not admit this key: ask the operator to run msd keys admit",
            "server 5 at h:5 and worker 1 at h:1 refuse this link: it has expired or was revoked; ask for another one",
        ),
        ("server 5 at h:5 does not use keys", "server 5 at h:5 does not use keys"),
    ],
)
def test_the_error_about_a_link_whose_key_is_refused_speaks_of_the_link(said: str, expected: str) -> None:
    assert str(link_error(NotAllowedError(said))) == expected


def test_only_the_error_about_a_link_speaks_of_it() -> None:
    error = NotAllowedError("server 5 at h:5 does not admit this key: ask the operator")
    with pytest.raises(NotAllowedError, match="has expired or was revoked"), link_refusals([f"{SCHEME}h/a"]):
        raise error
    with pytest.raises(NotAllowedError, match="ask the operator"), link_refusals(["a"]):
        raise error
