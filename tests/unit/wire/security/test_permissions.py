"""The permission table: which role may send which request."""

from __future__ import annotations

from typing import get_args

import pytest

from msd.wire.protocol import messages
from msd.wire.protocol.messages import (
    Announce,
    Complaint,
    Done,
    DownloadProgress,
    Heartbeat,
    Join,
    Message,
    Quit,
    StatusRequest,
    Toggle,
)
from msd.wire.security.keys import Role
from msd.wire.security.permissions import PERMISSIONS, is_permitted

DATA_REQUESTS = {*get_args(messages.DataRequest)}
REQUESTS = DATA_REQUESTS | {*get_args(messages.ControlRequest)}


def permitted(role: Role) -> set[type[Message]]:
    return {*(get_args(PERMISSIONS[role]) or [PERMISSIONS[role]])}


def test_every_role_has_a_row() -> None:
    assert {*PERMISSIONS} == {*Role}


def test_an_operator_may_send_everything_but_what_workers_send() -> None:
    assert permitted(Role.OPERATOR) == REQUESTS - {Join, Heartbeat}


def test_a_client_may_download_but_not_give_orders() -> None:
    assert permitted(Role.CLIENT) == DATA_REQUESTS | {StatusRequest, DownloadProgress, Done, Complaint, Announce}


def test_a_worker_may_only_join_and_send_heartbeats() -> None:
    assert permitted(Role.WORKER) == {Join, Heartbeat}


def test_without_keys_anyone_may_send_everything() -> None:
    assert permitted(Role.ANYONE) == REQUESTS


@pytest.mark.parametrize("role", Role)
def test_permission_depends_on_the_type_of_the_request(role: Role) -> None:
    may_order = role in (Role.OPERATOR, Role.ANYONE)
    assert is_permitted(role, Toggle(rid=1, number=1)) == is_permitted(role, Quit(rid=1)) == may_order
    assert is_permitted(role, StatusRequest(rid=1)) == (role is not Role.WORKER)
    assert not is_permitted(role, messages.Accepted(rid=1))
