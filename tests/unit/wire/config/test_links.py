"""Links: what they contain, and that a changed one is told from a right one."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msd.wire.config.links import MAX_LINK, SCHEME, Link, key_pair
from msd.wire.errors import UsageError
from msd.wire.net.endpoints import Endpoint

SERVER, SEED = bytes(range(32)), bytes(range(100, 116))
HOSTS = ("192.168.1.5", "films.example.org", "2001:db8::1", "fe80::1%eth0")


@given(
    host=st.sampled_from(HOSTS),
    port=st.integers(1, 65535),
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    keys=st.sampled_from([(None, None), (SERVER, None), (SERVER, SEED)]),
)
def test_a_link_is_read_as_it_was_written(
    host: str, port: int, name: str, keys: tuple[bytes | None, bytes | None]
) -> None:
    link = Link(Endpoint(host, port), name, *keys)
    assert Link.parse(link.text) == link
    assert link.text.isascii()
    assert " " not in link.text


def test_an_invitation_is_one_short_line() -> None:
    link = Link(Endpoint("192.168.100.5", 39223), "Star.mp4", SERVER, SEED)
    assert len(f"msd download {link.text}") < 120
    assert link.text.startswith("msd://192.168.100.5/Star.mp4#")
    assert link.text.count("#") == 1


def test_the_usual_port_may_be_left_out() -> None:
    assert Link.parse("msd://host/photos/").server5 == Endpoint("host", 39223)
    assert Link.parse("msd://host:80/photos/") == Link(Endpoint("host", 80), "photos/")
    assert Link.parse("msd://host") == Link.parse("msd://host/") == Link(Endpoint("host", 39223))


def test_a_seed_makes_one_key_pair() -> None:
    assert key_pair(SEED) == Link(Endpoint("host", 1), "", SERVER, SEED).key_pair
    assert key_pair(SEED) != key_pair(SEED[::-1])
    assert Link(Endpoint("host", 1), "", SERVER).key_pair is None


def test_secrets_are_not_in_the_representation() -> None:
    link = Link(Endpoint("host", 1), "film", SERVER, SEED)
    assert link.text.partition("#")[2] not in repr(link)
    assert SEED.hex() not in repr(link)


def test_each_single_change_of_a_link_with_keys_is_noticed(rng: random.Random) -> None:
    text = Link(Endpoint("192.168.1.5", 39223), "Star.mp4", SERVER, SEED).text
    alphabet = string.ascii_letters + string.digits + "-_"
    for at in range(len(SCHEME), len(text)):
        for new in (rng.choice(alphabet.replace(text[at], "")), ""):
            changed = text[:at] + new + text[at + 1 :]
            if changed.partition("#")[1] == "":
                continue  # Without its mark, the rest is a name.
            with pytest.raises(UsageError, match="link"):
                Link.parse(changed)


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_a_mutated_link_is_refused_or_names_its_host(count: int, rng: random.Random) -> None:
    text = Link(Endpoint("192.168.1.5", 39223), "photos/été 1.jpg", SERVER, SEED).text
    for _ in range(count):
        changed = [*text]
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(changed))
            match rng.randrange(3):
                case 0:
                    changed[at] = chr(rng.choice([rng.randrange(32, 127), rng.randrange(0x110000 - 0x800) % 0xD800]))
                case 1:
                    del changed[at]
                case _:
                    changed.insert(at, rng.choice(text))
        mutated = "".join(changed)
        link, error = parsed(mutated)
        if link is None:
            assert "\n" not in error
            assert mutated not in error
        else:
            assert str(link.server5).partition(":")[0] in mutated
            assert "#" not in mutated or mutated == text


def parsed(text: str) -> tuple[Link | None, str]:
    """The link, or the error."""
    try:
        return Link.parse(text), ""
    except UsageError as error:
        return None, str(error)


@pytest.mark.parametrize(
    "text",
    ["", "msd:", "http://host/film", "msd:///film", "msd://host:0/film", "msd://host/%ff", "msd://h/" + "x" * MAX_LINK],
)
def test_what_is_no_link_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Link.parse(text)
    assert "film" not in str(caught.value)
