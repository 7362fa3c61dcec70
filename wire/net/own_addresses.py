"""The addresses of this machine that other machines may be able to use.

Asks the kernel (netlink); sends nothing to the network. Whether a router or a firewall lets others reach an address
cannot be known here.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence

from msd.wire.net.endpoints import ANY_HOSTS

#: From Linux's rtnetlink.h and if_addr.h.
_RTM_NEWADDR, _RTM_GETADDR, _NLM_F_REQUEST_DUMP, _NLMSG_DONE, _NLMSG_ERROR = 20, 22, 0x301, 3, 2
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
#: Temporary addresses for privacy, failed and deprecated ones.
_IFA_F_UNUSABLE = 0x01 | 0x08 | 0x20
_HEADER, _ADDRESS, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBBBI"), struct.Struct("=HH")


def hosts_for_others(host: str) -> Sequence[str]:
    """Returns the addresses at which other machines may reach a server that listens on ``host``: for a wildcard all
    addresses of this machine but loopback and link-local ones, IPv4 first.
    """
    if host not in ANY_HOSTS:
        return () if ipaddress.ip_address(host).is_loopback else (host,)
    try:
        addresses = list(own_addresses())
    except OSError:
        return ()
    return [
        str(address)
        for address in sorted(addresses, key=lambda address: address.version)
        if (address.version == 4 or host == "::") and not address.is_loopback and not address.is_link_local
    ]


def own_addresses() -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Yields all addresses of this machine. Raises ``OSError``."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        request = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        size = _HEADER.size + len(request)
        netlink.send(_HEADER.pack(size, _RTM_GETADDR, _NLM_F_REQUEST_DUMP, 1, 0) + request)
        while True:
            answer = netlink.recv(1 << 16)
            while answer:
                length, kind, _, _, _ = _HEADER.unpack_from(answer)
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    return
                if kind == _RTM_NEWADDR:
                    yield from _address(answer[_HEADER.size : length])
                answer = answer[_aligned(length) :]


def _address(message: bytes) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    _, _, flags, _, _ = _ADDRESS.unpack_from(message)
    attributes, rest = {}, message[_ADDRESS.size :]
    while rest:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        attributes[kind] = rest[_ATTRIBUTE.size : length]
        rest = rest[_aligned(length) :]
    # On a point-to-point interface IFA_ADDRESS is the address of the peer.
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if packed is not None and not flags & _IFA_F_UNUSABLE:
        yield ipaddress.ip_address(packed)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
