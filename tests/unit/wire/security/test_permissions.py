"""The permission table: which role may send which request."""

from __future__ import annotations

from typing import get_args

import pytest

from msd.wire.protocol import messages
from msd.wire.protocol.messages import Complaint, Done, Heartbeat, Message, Quit, StatusRequest, Toggle
from msd.wire.security.keys import Role
from msd.wire.security.permissions import PERMISSIONS, is_permitted

REQUESTS = [*get_args(messages.DataRequest), *get_args(messages.ControlRequest)]


def test_every_request_has_a_row() -> None:
    assert {*PERMISSIONS} == {*REQUESTS}


@pytest.mark.parametrize("request_type", REQUESTS)
def test_an_operator_may_send_everything_but_heartbeats(request_type: type[Message]) -> None:
    assert (Role.OPERATOR in PERMISSIONS[request_type]) == (request_type is not Heartbeat)


def test_a_client_may_not_give_orders() -> None:
    may = {request for request in get_args(messages.ControlRequest) if Role.CLIENT in PERMISSIONS[request]}
    assert may == {StatusRequest, Done, Complaint}


def test_a_worker_may_send_heartbeats_only() -> None:
    assert {request for request, roles in PERMISSIONS.items() if Role.WORKER in roles} == {Heartbeat}


def test_permission_depends_on_the_type_of_the_request() -> None:
    assert is_permitted(Role.OPERATOR, Toggle(rid=1, number=1))
    assert not is_permitted(Role.CLIENT, Quit(rid=1))
    assert not is_permitted(Role.OPERATOR, messages.Accepted(rid=1))
