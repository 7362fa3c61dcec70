"""The largest frame that each socket accepts, in bytes (``ZMQ_MAXMSGSIZE``).

ZeroMQ disconnects a peer that sends a larger frame.
"""

from __future__ import annotations

from msd.wire.protocol.segments import MAX_SEGMENT_SIZE

#: A request to a worker or to the broker.
MAX_REQUEST_FRAME = 65536
#: A worker's reply: the payload of one segment, plus some reserve.
MAX_REPLY_FRAME = MAX_SEGMENT_SIZE + 4096
#: A snapshot of server 5; a snapshot of 64 workers fits.
MAX_SNAPSHOT_FRAME = 65536
#: A subscription to the status socket. Not below 1024, because the limit also applies to CURVE handshakes.
MAX_SUBSCRIPTION_FRAME = 1024
