"""Which role may send which request: the table of rights.

Does not know peers: ``wire/security/zap.py`` admits them and assigns their roles.
"""

from __future__ import annotations

from collections.abc import Mapping

from msd.wire.protocol.messages import (
    Bye,
    Complaint,
    Describe,
    Digests,
    Done,
    Get,
    Heartbeat,
    Hello,
    List,
    Message,
    Quit,
    StatusRequest,
    Toggle,
)
from msd.wire.security.keys import Role

_CLIENTS = frozenset({Role.CLIENT, Role.OPERATOR})
_OPERATORS = frozenset({Role.OPERATOR})
_WORKERS = frozenset({Role.WORKER})

#: The roles that may send each request. No other role may send the request; messages that are not listed are not
#: requests.
PERMISSIONS: Mapping[type[Message], frozenset[Role]] = {
    # To a worker.
    Hello: _CLIENTS,
    List: _CLIENTS,
    Describe: _CLIENTS,
    Digests: _CLIENTS,
    Get: _CLIENTS,
    Bye: _CLIENTS,
    # To the broker.
    StatusRequest: _CLIENTS,
    Done: _CLIENTS,
    Complaint: _CLIENTS,
    Toggle: _OPERATORS,
    Quit: _OPERATORS,
    Heartbeat: _WORKERS,
}


def is_permitted(role: Role, request: Message) -> bool:
    """Returns True if a peer with this role may send this request."""
    return role in PERMISSIONS.get(type(request), ())
