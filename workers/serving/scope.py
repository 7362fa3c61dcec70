"""What an invited client may ask for: only the file or folder for which it was invited. Pure.

An invitation is for one name, its *scope*: that of a file, or of a folder, which ends with ``/``. The empty scope is
everything. Does not know the clients: ``wire/security/zap.py`` does.
"""

from __future__ import annotations

from msgspec.structs import replace

from msd.wire.protocol.messages import DataRequest, Describe, Digests, Get, GetBundle
from msd.wire.protocol.segments import DIGEST_SIZE
from msd.workers.source.catalogue import Catalogue

#: The id of no file.
_NO_ID = bytes(DIGEST_SIZE)


def is_in_scope(name: str, scope: str) -> bool:
    """True if a client that was invited for ``scope`` may have the file ``name``."""
    return not scope or name == scope or (scope.endswith("/") and name.startswith(scope))


def narrowed(request: DataRequest, scope: str, catalogue: Catalogue) -> DataRequest | None:
    """Returns the request without what is not in the scope; None if nothing remains of it. A ``list`` is returned
    unchanged: ``compact_request`` narrows it.
    """
    match request:
        case Describe(name=None, id=None):
            return request if scope.endswith("/") else replace(request, name=scope)
        case Describe(name=str() as name):
            return request if is_in_scope(name, scope) else None
        case Describe(id=bytes() as id) | Get(id=id) | Digests(id=id):
            return request if _is_id_in_scope(id, scope, catalogue) else None
        case GetBundle(ids=ids):
            each = [ids[at : at + DIGEST_SIZE] for at in range(0, len(ids), DIGEST_SIZE)]
            kept = [id if _is_id_in_scope(id, scope, catalogue) else _NO_ID for id in each]
            return replace(request, ids=b"".join(kept))
    return request


def _is_id_in_scope(id: bytes, scope: str, catalogue: Catalogue) -> bool:
    file = catalogue.find(None, id)
    return file is not None and any(is_in_scope(copy.name, scope) for copy in catalogue.copies(file))
