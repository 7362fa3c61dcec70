"""``msd serve``: starts a broker as soon as its ports are free, or on other ports, and runs it.

Does not know what a broker does: see ``broker/server.py``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from msd.broker.server import Broker
from msd.broker.terminal.output_thread import OutputThread
from msd.wire.config.settings import LOOPBACK, Config
from msd.wire.net import limits
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.ports import PortInUseError
from msd.wire.support.units import format_count

#: If the default ports are in use, ports that are higher by multiples of this number are tried, up to the maximum. The
#: ports of 64 workers fit in between.
PORT_DISTANCE, MAX_PORT_DISTANCE = 100, 2500
#: How long the kernel keeps the port of a closed connection (TIME_WAIT), with a margin, and the time between attempts.
CLOSED_CONNECTION_S, PORT_RETRY_INTERVAL_S = 65.0, 0.25
#: Descriptors, and processes and threads, that the broker and its indexer need, and further ones for each worker.
FILES, FILES_PER_WORKER = 40, 4
THREADS, THREADS_PER_WORKER = 7, 4


def serve(
    config: Config,
    *,
    until_done: bool,
    console: Callable[[Endpoint], Sequence[str]] | None = None,
    stdout: int = 1,
    verbose: bool = False,
) -> int:
    """Runs a broker with ``config`` and returns its exit code. ``console`` returns the command line of the console
    process for server 5's endpoint, None means the plain console; ``verbose`` logs to standard error. Raises
    ``MsdError`` if the broker cannot run.
    """
    count = len(config.workers)
    limits.require(
        FILES + count * FILES_PER_WORKER,
        THREADS + count * THREADS_PER_WORKER,
        f"the broker and {format_count(count, 'worker')}",
    )
    # A table is for a terminal; elsewhere, such as in a journal, each event is a line.
    output = OutputThread(stdout, verbose=verbose, prints_tables=os.isatty(stdout))
    try:
        if config.passed_over_file:
            output.note("config.toml in the current folder has no section of msd: it is not used")
        broker = _start_broker(config, output, console, until_done=until_done)
        try:
            return broker.run()
        finally:
            broker.close()
    finally:
        output.close()


def _start_broker(
    config: Config, output: OutputThread, console: Callable[[Endpoint], Sequence[str]] | None, *, until_done: bool
) -> Broker:
    """Starts a broker; on loopback, if a default port is in use, on other ports. All ports are replaced together: a
    sleeping worker of other servers does not listen, but its port is not free either.
    """
    may_move = config.has_default_ports and config.exposed_endpoint is None
    if not may_move:
        return _wait_for_ports(config, output, console, until_done=until_done)
    for distance in range(0, MAX_PORT_DISTANCE + 1, PORT_DISTANCE):
        chosen = config.with_other_ports(distance)
        command = console(chosen.status.replace_wildcard(LOOPBACK)) if console is not None else None
        try:
            broker = Broker(chosen, output, until_done=until_done, console=command)
        except PortInUseError as error:
            if distance == MAX_PORT_DISTANCE or error.port == config.metrics_port:
                raise
        else:
            if distance:
                ports = " ".join(str(worker.endpoint.port) for worker in chosen.workers)
                output.note(f"the usual ports are in use: using {f'{ports} {chosen.status_port}'.strip()} instead")
            return broker
    raise AssertionError  # The last attempt returned or raised.


def _wait_for_ports(
    config: Config, output: OutputThread, console: Callable[[Endpoint], Sequence[str]] | None, *, until_done: bool
) -> Broker:
    """Starts a broker. If only closed connections occupy a port, waits until the kernel frees it."""
    command = console(config.status.replace_wildcard(LOOPBACK)) if console is not None else None
    give_up_at = time.monotonic() + CLOSED_CONNECTION_S
    waits_for = 0
    while True:
        try:
            return Broker(config, output, until_done=until_done, console=command)
        except PortInUseError as error:
            if not error.frees_itself or time.monotonic() > give_up_at:
                raise
            if error.port != waits_for:
                waits_for = error.port
                output.note(f"waiting up to a minute for port {error.port}: a closed connection still occupies it")
        time.sleep(PORT_RETRY_INTERVAL_S)
