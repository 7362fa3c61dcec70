"""One peer of a torrent, or its tracker, for ``bench/fanout.py``: libtorrent over TCP, without DHT and local discovery.

``python -m bench.torrent tracker PORT`` answers announcements until it is killed. ``… seed`` and ``… receive TORRENT
FOLDER PORT`` serve the file of a torrent, or receive it: then the seconds are printed, and it is served on.
"""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

#: Seconds between two announcements of a peer.
INTERVAL_S = 2
#: The size of a piece: that of msd's segments.
PIECE = 1 << 20


def make_torrent(path: Path, torrent: Path, tracker: str) -> None:
    """Writes the torrent of a file."""
    import libtorrent as lt

    files = lt.file_storage()
    lt.add_files(files, str(path))
    creator = lt.create_torrent(files, piece_size=PIECE)
    creator.add_tracker(tracker)
    lt.set_piece_hashes(creator, str(path.parent))
    torrent.write_bytes(lt.bencode(creator.generate()))


def run_peer(kind: str, torrent: Path, folder: Path, port: int) -> None:
    import libtorrent as lt

    session = lt.session(
        {
            "listen_interfaces": f"0.0.0.0:{port}",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "enable_outgoing_utp": False,
            "enable_incoming_utp": False,
            "allow_multiple_connections_per_ip": True,
            "announce_to_all_trackers": True,
            "min_reconnect_time": 1,
            "alert_mask": 0,
        }
    )
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(str(torrent))
    parameters.save_path = str(folder)
    if kind == "seed":
        parameters.flags |= lt.torrent_flags.seed_mode
    handle = session.add_torrent(parameters)
    began = time.monotonic()
    while kind == "receive" and not handle.status().is_seeding:
        time.sleep(0.02)
    print(f"{time.monotonic() - began:.3f}", flush=True)
    sys.stdin.read()


class Tracker(BaseHTTPRequestHandler):
    """Answers an announcement with all other peers that have announced themselves."""

    peers: ClassVar[dict[bytes, tuple[str, int]]] = {}

    def do_GET(self) -> None:
        values = parse_qs(urlsplit(self.path).query, encoding="latin-1")
        own = values["peer_id"][0].encode("latin-1")
        self.peers[own] = self.client_address[0], int(values["port"][0])
        others = [peer for id, peer in self.peers.items() if id != own]
        packed = b"".join(bytes(map(int, host.split("."))) + port.to_bytes(2, "big") for host, port in others)
        body = b"d8:intervali%de12:min intervali%de5:peers%d:%be" % (INTERVAL_S, INTERVAL_S, len(packed), packed)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


def main(arguments: list[str]) -> None:
    match arguments:
        case ["tracker", port]:
            ThreadingHTTPServer(("0.0.0.0", int(port)), Tracker).serve_forever()
        case ["seed" | "receive" as kind, torrent, folder, port]:
            run_peer(kind, Path(torrent), Path(folder), int(port))


if __name__ == "__main__":
    main(sys.argv[1:])
