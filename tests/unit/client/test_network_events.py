"""The events of a client's connections."""

from __future__ import annotations

from typing import get_args

import pytest
import zmq

from msd.client.network_events import ConnectionClosed, NetworkEvent, Payload


def test_a_received_frame_is_a_payload() -> None:
    frame = zmq.Frame(b"abc")
    payload: Payload = frame
    assert (bytes(payload.buffer), payload.bytes) == (b"abc", b"abc")


def test_events_are_immutable() -> None:
    assert all(event.__struct_config__.frozen for event in get_args(NetworkEvent))
    with pytest.raises(AttributeError):
        ConnectionClosed(1).worker = 2  # type: ignore[misc]
