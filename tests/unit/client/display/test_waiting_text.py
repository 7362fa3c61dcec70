"""A wait is shown with its reason and with what ends it."""

from __future__ import annotations

import pytest

from msd.client.display.waiting_text import waiting_text
from msd.client.events import Waiting
from msd.wire.net.diagnosis import Contact, Outcome
from msd.wire.net.endpoints import Endpoint

ADDRESSES = (Contact("server 5", Endpoint("127.0.0.1", 9), Outcome.REFUSED),)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Waiting("no data", 1.0), "no data (Ctrl-C ends the wait)"),
        (Waiting("no answer", 1.0, ADDRESSES), "no answer (Ctrl-C ends the wait, --timeout limits it)"),
        (Waiting("no answer", 1.0, ADDRESSES, 2.5), "no answer (gives up after 2.5 s)"),
    ],
)
def test_a_wait_is_shown_with_its_reason_and_its_end(event: Waiting, text: str) -> None:
    assert waiting_text(event) == text
