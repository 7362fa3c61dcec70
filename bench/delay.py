"""Delays TCP connections, for ``bench/faults.py``: a proxy in the network namespace of the client.

``python -m bench.delay SECONDS HOST:PORT …`` prints a local port for each target, and forwards it to the target with
the delay in each direction, until it is killed.
"""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack

from tests.network_fault_proxy import Proxy

#: A client may choose a different local address for each port.
ANY_ADDRESS = "0.0.0.0"


def main(seconds: str, *targets: str) -> None:
    with ExitStack() as stack:
        ports = []
        for target in targets:
            host, _, port = target.partition(":")
            proxy = stack.enter_context(Proxy(int(port), near=ANY_ADDRESS, far=host))
            proxy.delay = float(seconds)
            ports.append(proxy.port)
        print(*ports, flush=True)
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
