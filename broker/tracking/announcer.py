"""Who has sent an announcement: a client, as the broker tells it apart from others. Pure."""

from __future__ import annotations

import ipaddress

from msgspec import Struct


class Announcer(Struct, frozen=True):
    """Who sent a request: the name of its key (empty if no keys are used) and the address from which it came."""

    key: str
    host: str

    @property
    def network(self) -> str:
        """The address or, of IPv6, the /64 network: one machine may have all of its addresses."""
        if ":" not in self.host:
            return self.host
        packed = ipaddress.IPv6Address(self.host.partition("%")[0]).packed
        return packed[:8].hex()
