"""The text of the error after which no worker can complete a download."""

from __future__ import annotations

import pytest

from msd.client.network_events import BanReason
from msd.client.operations.source_error import VersionLostError, source_error
from msd.wire.errors import SourceError


def error(*reasons: BanReason) -> SourceError:
    return source_error(dict(enumerate(reasons, 1)), 7, "Star.mp4")


def text(*reasons: BanReason) -> str:
    return str(error(*reasons))


def test_it_says_what_was_tried_and_what_each_worker_did() -> None:
    message = text(BanReason.CORRUPT, BanReason.UNREADABLE)
    assert message.startswith(
        "no worker can send segment 7 of Star.mp4 (worker 1 sent corrupt data, worker 2 cannot read the file): "
    )


def test_a_worker_on_another_host_is_called_by_its_name_and_host() -> None:
    reasons = {5: BanReason.UNKNOWN, 6: BanReason.CHANGED}
    assert "(worker 5 (attic, 192.0.2.7) does not have this version of the file, worker 6 has another" in str(
        source_error(reasons, 7, "Star.mp4", {5: "attic, 192.0.2.7"})
    )


def test_what_several_workers_say_is_said_once() -> None:
    bans = dict.fromkeys((1, 2, 3), BanReason.UNREADABLE)
    message = str(source_error(bans, 7, "Star.mp4", {1: "", 2: ""}, dict.fromkeys((1, 2, 3), "s3://films: 500")))
    workers = (
        "worker 1 cannot read the file: s3://films: 500, worker 2 cannot read the file, worker 3 cannot read the file"
    )
    assert f"({workers})" in message


def test_a_worker_that_cannot_read_the_file_says_why() -> None:
    bans = {1: BanReason.UNREADABLE, 2: BanReason.CORRUPT, 3: BanReason.UNREADABLE}
    message = str(source_error(bans, 7, "Star.mp4", details={1: "Permission denied", 2: "Is a directory"}))
    assert "(worker 1 cannot read the file: Permission denied, worker 2 sent corrupt data, worker 3 can" in message


@pytest.mark.parametrize(
    ("reasons", "advice"),
    [
        ([BanReason.CORRUPT], "check the disks and the memory of the servers, and compare the file with msd verify"),
        ([BanReason.CORRUPT, BanReason.UNREADABLE], "check on the servers that it can be read"),
        ([BanReason.BAD_REQUEST], "update the older side"),
    ],
)
def test_the_advice_fits_the_reasons(reasons: list[BanReason], advice: str) -> None:
    assert text(*reasons).endswith(advice)


@pytest.mark.parametrize("reason", list(BanReason))
def test_every_reason_has_words_of_its_own(reason: BanReason) -> None:
    assert f"(worker 1 {reason}" not in text(reason)


@pytest.mark.parametrize("reason", [BanReason.CHANGED, BanReason.UNKNOWN])
def test_another_version_may_be_fetched_if_workers_lack_this_one(reason: BanReason) -> None:
    lost = error(BanReason.CORRUPT, reason)
    assert isinstance(lost, VersionLostError)
    assert str(lost).endswith(")")
    assert not isinstance(error(BanReason.CORRUPT), VersionLostError)
