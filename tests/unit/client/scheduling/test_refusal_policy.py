"""The tables of refusals and bans are complete."""

from __future__ import annotations

import pytest

from msd.client.network_events import BanReason
from msd.client.scheduling.refusal_policy import BAN_SCOPES, REFUSAL_POLICIES, BanScope
from msd.wire.protocol.states import RefusalReason


@pytest.mark.parametrize("reason", list(RefusalReason))
def test_every_refusal_either_pauses_a_worker_or_bans_it(reason: RefusalReason) -> None:
    policy = REFUSAL_POLICIES[reason]
    assert (policy.pause_s > 0) != (policy.ban is not None)


def test_every_ban_has_a_scope() -> None:
    assert {*BAN_SCOPES} == {*BanReason}
    assert {*BAN_SCOPES.values()} == {*BanScope}


def test_a_refusal_and_its_ban_have_the_same_name() -> None:
    bans = {reason.value: policy.ban.value for reason, policy in REFUSAL_POLICIES.items() if policy.ban}
    assert bans.pop(RefusalReason.VERSION) == bans.pop(RefusalReason.MISSING) == BanReason.OTHER
    assert all(reason == ban for reason, ban in bans.items())
    assert {*bans} == {*BanReason} - {BanReason.CORRUPT, BanReason.MALFORMED}
