"""What happens to a shared file whose name exists on the disk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msd.client.storage.existing_file import TIME_STEPS_NS, Decision, Existing, Kind, Policy, decide, is_same_time
from msd.wire.protocol.messages import Entry

TIME = 1_600_000_001_234_567_891
ENTRY = Entry(name="a", size=5, mtime_ns=TIME, id=b"i" * 32)
NONE, UPDATE, FORCE, CHECKSUM = Policy(), Policy(update=True), Policy(force=True), Policy(checksum=True)
FETCH, REPLACE, KEEP = Decision.FETCH, Decision.REPLACE, Decision.KEEP
COMPARE, REFUSE = Decision.COMPARE, Decision.REFUSE


@pytest.mark.parametrize("policy", [NONE, UPDATE, FORCE, CHECKSUM])
def test_what_does_not_exist_is_fetched(policy: Policy) -> None:
    assert decide(ENTRY, None, policy) is FETCH


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        (Existing(Kind.FILE, 5, TIME), {NONE: KEEP, UPDATE: KEEP, FORCE: KEEP, CHECKSUM: COMPARE}),
        (Existing(Kind.FILE, 5, TIME + 1), {NONE: REFUSE, UPDATE: COMPARE, FORCE: REPLACE, CHECKSUM: COMPARE}),
        (Existing(Kind.FILE, 4, TIME), {NONE: REFUSE, UPDATE: REPLACE, FORCE: REPLACE, CHECKSUM: REFUSE}),
        (Existing(Kind.LINK, 5, TIME), {NONE: REFUSE, UPDATE: REPLACE, FORCE: REPLACE, CHECKSUM: REFUSE}),
        (Existing(Kind.FOLDER, 5, TIME), dict.fromkeys([NONE, UPDATE, FORCE, CHECKSUM], REFUSE)),
        (Existing(Kind.SPECIAL, 5, TIME), dict.fromkeys([NONE, UPDATE, FORCE, CHECKSUM], REFUSE)),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Existing) else "",
)
def test_an_existing_file_is_kept_compared_replaced_or_refused(
    existing: Existing, expected: dict[Policy, Decision]
) -> None:
    assert {policy: decide(ENTRY, existing, policy) for policy in expected} == expected


@pytest.mark.parametrize("step", TIME_STEPS_NS)
@given(st.integers(0, 1 << 62))
def test_a_time_that_the_file_system_rounded_is_the_same(step: int, shared: int) -> None:
    rounded = shared - shared % step
    assert is_same_time(rounded, shared)
    assert is_same_time(rounded + step, shared + step - 1)


@pytest.mark.parametrize("other", [TIME + 1, TIME - 1, TIME + 1_000_000_000, TIME - 3_000_000_000 - TIME % 10**9])
def test_another_time_is_another_time(other: int) -> None:
    assert not is_same_time(other, TIME)
