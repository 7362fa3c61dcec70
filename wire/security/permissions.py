"""Which role may send which request: the table of rights.

Does not know peers: ``wire/security/zap.py`` admits them and assigns their roles.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType

from msd.wire.protocol.messages import (
    Announce,
    Complaint,
    ControlRequest,
    DataRequest,
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

#: The requests that each role may send, and no others.
PERMISSIONS: Mapping[Role, UnionType | type[Message]] = {
    Role.CLIENT: DataRequest | StatusRequest | DownloadProgress | Done | Complaint | Announce,
    Role.OPERATOR: DataRequest | StatusRequest | DownloadProgress | Done | Complaint | Announce | Toggle | Quit,
    Role.WORKER: Join | Heartbeat,
    Role.ANYONE: DataRequest | ControlRequest,
}


def is_permitted(role: Role, request: Message) -> bool:
    """Returns True if a peer with this role may send this request."""
    return isinstance(request, PERMISSIONS[role])
