"""The event loop of a client: runs any number of tasks on one set of connections.

Passes the events of ``client/network/pool.py`` to the tasks, and each reply to the task that sent the request. Makes no
decisions: what to request is up to the tasks.
"""

from __future__ import annotations

import math
from collections import defaultdict

from msd.client.network.pool import ConnectionPool
from msd.client.network_events import ConnectionClosed, ConnectionOpened, NetworkEvent, ReplyReceived, is_peer
from msd.wire.protocol.messages import Correlated
from msd.wire.support.core import Stalled


class Task:
    """A part of what a client does, for example the look-up of a file. Methods raise ``MsdError``."""

    #: True once nothing is left to do.
    is_done = False
    #: True if the task takes the connections to peers as events, too. All others know of workers only: what is listed
    #: and what is right, a peer does not say.
    takes_peers = False

    def handle(self, event: NetworkEvent | Stalled) -> None:
        """Handles an event of the connections, or of this process: ``Stalled``.

        When a task starts, it receives the latest snapshot and the open connections as events.
        """
        raise NotImplementedError

    def pass_time(self) -> float:
        """Does what is due, and returns the time at which something is due again: monotonic seconds, or infinity.

        Called after all events that were ready, and at that time.
        """
        raise NotImplementedError


class Session:
    """Runs tasks on the connections of ``pool``."""

    def __init__(self, pool: ConnectionPool) -> None:
        self.pool = pool
        self._tasks: list[Task] = []
        #: For each worker, the tasks that wait for a reply, by request id.
        self._waiting: defaultdict[int, dict[int, Task]] = defaultdict(dict)

    def request(self, task: Task, worker: int, request: Correlated) -> None:
        """Sends a request, if the worker is connected; ``task`` receives the reply. The request's ``rid`` must be from
        ``new_rid()``.
        """
        self._waiting[worker][request.rid] = task
        self.pool.request(worker, request)

    def forget(self, worker: int) -> None:
        """The connection to a worker was closed by a task, and no reply follows."""
        self._waiting.pop(worker, None)

    def start(self, task: Task) -> None:
        """Adds a task, which then runs beside the others."""
        self._tasks.append(task)
        for event in self.pool.current_state():
            task.handle(event)

    def run(self, task: Task) -> None:
        """Starts ``task`` and runs all tasks until it is done. Raises ``MsdError``."""
        self.start(task)
        try:
            while True:
                deadline = self._pass_time()
                if task.is_done:
                    return
                self._step(deadline)
        finally:
            if task in self._tasks:
                self._tasks.remove(task)

    def _pass_time(self) -> float:
        """Lets all tasks do what is due; returns the first deadline. Forgets the tasks that are done."""
        deadline = math.inf
        # Also reaches the tasks that others start meanwhile.
        for task in self._tasks:
            if not task.is_done:
                deadline = min(deadline, task.pass_time())
        if any(task.is_done for task in self._tasks):
            self._tasks = [task for task in self._tasks if not task.is_done]
            # Another task may wait for the result.
            return -math.inf
        return deadline

    def _step(self, deadline: float) -> None:
        self.pool.wait(deadline)
        if self.pool.stalled_seconds:
            self._handle(Stalled(self.pool.stalled_seconds))
        for event in self.pool.events():
            # First, because it is by far the most frequent event.
            if isinstance(event, ReplyReceived):
                waiting = self._waiting[event.worker].pop(event.request.rid, None)
                if waiting is not None and not waiting.is_done:
                    waiting.handle(event)
                continue
            if isinstance(event, ConnectionOpened | ConnectionClosed):
                self._waiting.pop(event.worker, None)
                self._handle(event, of_peer=is_peer(event.worker))
                continue
            self._handle(event)

    def _handle(self, event: NetworkEvent | Stalled, *, of_peer: bool = False) -> None:
        for task in [*self._tasks]:
            if not task.is_done and (task.takes_peers or not of_peer):
                task.handle(event)
