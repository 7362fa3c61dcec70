"""The error of a download that no worker can complete: what each worker did, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from msd.client.network_events import BanReason
from msd.wire.errors import SourceError
from msd.wire.support.presentable_names import presentable

#: What a banned worker did, for each reason of a ban.
BAN_TEXTS = {
    BanReason.CORRUPT: "sent corrupt data",
    BanReason.MALFORMED: "sent a malformed reply",
    BanReason.UNKNOWN: "does not have this version of the file",
    BanReason.CHANGED: "has another version of the file",
    BanReason.UNREADABLE: "cannot read the file",
    BanReason.BAD_REQUEST: "refused the request as invalid",
    BanReason.OTHER: "refused the request for a reason that this version of msd does not know",
}


class VersionLostError(SourceError):
    """No worker has this version of the file any more. The message gives no advice: another version may be fetched."""


def source_error(
    bans: Mapping[int, BanReason],
    segment: int,
    name: str,
    places: Mapping[int, str] | None = None,
    details: Mapping[int, str] | None = None,
) -> SourceError:
    """Returns the error if all workers are banned and ``segment`` of the file ``name`` is missing; a
    ``VersionLostError`` if workers lack this version of the file. ``places`` are the names and hosts of workers on
    other hosts, ``details`` why workers cannot read the file.
    """
    reasons = set(bans.values())
    hosts = {number: f" ({place})" for number, place in (places or {}).items() if place}
    # Workers that share a store all say the same: once is enough.
    first = {
        detail: n for n, detail in sorted((details or {}).items(), reverse=True) if bans.get(n) is BanReason.UNREADABLE
    }
    known = {number: f": {presentable(detail)}" for detail, number in first.items() if detail}
    workers = ", ".join(
        f"worker {number}{hosts.get(number, '')} {BAN_TEXTS[reason]}{known.get(number, '')}"
        for number, reason in sorted(bans.items())
    )
    problem = f"no worker can send segment {segment} of {presentable(name)} ({workers})"
    if reasons & {BanReason.CHANGED, BanReason.UNKNOWN}:
        return VersionLostError(problem)
    if BanReason.UNREADABLE in reasons:
        advice = "check on the servers that it can be read"
    elif BanReason.CORRUPT in reasons:
        advice = "check the disks and the memory of the servers, and compare the file with msd verify"
    else:
        advice = "update the older side"
    return SourceError(f"{problem}: {advice}")
