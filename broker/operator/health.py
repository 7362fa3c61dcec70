"""``msd health``: says whether server 5 is ready, or whether a worker is there, for programs that watch services.

Asks once and repairs nothing. Needs no key for a worker: it looks at the greeting of ZeroMQ, not at a message.
"""

from __future__ import annotations

import select
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager

from msd.broker.operator.operator_client import OperatorClient
from msd.wire.config.servers import Servers
from msd.wire.config.settings import LOOPBACK
from msd.wire.errors import MsdError, NoAnswerError, NotAllowedError, UsageError
from msd.wire.net.contacts import Probed
from msd.wire.net.diagnosis import Contact, Outcome, diagnose
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.name_lookup import look_up
from msd.wire.net.ports import is_held
from msd.wire.net.probe import Prober
from msd.wire.protocol.messages import PROTOCOL_VERSION, Status
from msd.wire.protocol.states import WantedState, WorkerState

#: Seconds that a server may take to answer. Programs that watch services usually allow a few seconds.
TIMEOUT_S = 3.0


def check_broker(servers: Servers) -> str:
    """Returns a line about server 5, which is ready. Raises ``MsdError``, with exit code 1 if it is not ready."""
    with _exit_code_1(), OperatorClient(servers, TIMEOUT_S) as operator:
        return readiness(operator.latest)


def readiness(status: Status) -> str:
    """Returns a line about servers that are ready: a worker is awake, or none of the broker's own is wanted awake.
    Raises ``MsdError`` if they are not.
    """
    counts = Counter(worker.state for worker in status.workers)
    workers = ", ".join(f"{count} {state}" for state, count in counts.items()) or "none"
    # The broker can be ready without workers that join it, and the operator may have put all others to sleep.
    missing = [worker for worker in status.workers if not worker.host and worker.wanted is WantedState.AWAKE]
    if counts[WorkerState.AWAKE] or not missing:
        return f"server 5 answers; workers: {workers}"
    indexing = "" if status.indexing is None else f" (indexing: {status.indexing} %)"
    raise MsdError(f"server 5 answers, but no worker is awake: {workers}{indexing}: see msd status")


def check_worker(address: str) -> str:
    """Returns a line about the worker that listens at ``address``, a port of this machine or ``HOST:PORT``, or that has
    reserved it. Raises ``MsdError``, with exit code 1 if there is none.
    """
    with _exit_code_1():
        endpoint = _parse(address)
    results = [_probe(one) for one in endpoint.addresses]
    if any(probed.outcome is Outcome.NO_REPLY for probed in results):
        return f"a worker answers at {endpoint}"
    if all(probed.outcome is Outcome.REFUSED for probed in results) and is_held(endpoint):
        return f"a worker has reserved {endpoint}: it sleeps, or indexes its files"
    contacts = [Contact("worker", probed.endpoint, probed.outcome, probed.detail) for probed in results]
    raise MsdError(diagnose(contacts, PROTOCOL_VERSION))


@contextmanager
def _exit_code_1() -> Iterator[None]:
    """Programs that watch services know 0 and 1; wrong flags keep their own exit code."""
    try:
        yield
    except (NoAnswerError, NotAllowedError) as error:
        raise MsdError(str(error), arguments=error.arguments) from None


def _parse(address: str) -> Endpoint:
    try:
        endpoint = Endpoint.parse(f"{LOOPBACK}:{address}" if address.isdigit() else address)
    except UsageError as error:
        raise UsageError(f"--worker {error}") from None
    endpoint = endpoint.replace_wildcard(LOOPBACK)
    name = endpoint.name_to_look_up
    return endpoint if name is None else endpoint.with_addresses(look_up([name], TIMEOUT_S))


def _probe(endpoint: Endpoint) -> Probed:
    deadline = time.monotonic() + TIMEOUT_S
    with closing(Prober()) as prober:
        results = [*prober.start(endpoint)]
        while not results:
            select.select([prober.fd], [], [], max(0.0, deadline - time.monotonic()))
            results = prober.read() or (prober.stop() if time.monotonic() >= deadline else [])
    return results[0]
