"""What the broker knows of a worker and of its process. Decides nothing: see ``broker/supervision/supervisor.py``."""

from __future__ import annotations

from collections import deque

from msgspec import Struct, field

from msd.wire.protocol.messages import Heartbeat, Load
from msd.wire.protocol.states import ReportedState, WantedState, WorkerState

#: Stands for the last heartbeat of a run that has not sent one yet.
NO_HEARTBEAT = Heartbeat(number=1, epoch=0, state=ReportedState.ASLEEP, edition=0, load=Load(), sessions=[])


class Process(Struct):
    """The supervisor's record of the process of a worker that the broker starts."""

    #: 0 if, and only if, the process does not run.
    pid: int = 0
    started_at: float = 0.0
    restarts: int = 0
    #: Times of the crashes within ``CRASH_WINDOW_S``; cleared by a run of ``STEADY_AFTER_S`` seconds.
    crashes: deque[float] = field(default_factory=deque)
    #: Time of the next restart; set only in the state dead.
    restart_at: float | None = None
    #: True once ``Kill`` was returned for this process.
    killed: bool = False
    abandoned: bool = False


class Departed(Struct, frozen=True):
    """What returns with a worker that is not listed any more: its number, if that is free, and its wanted state."""

    number: int
    wanted: WantedState


class WorkerRecord(Struct):
    """The supervisor's record of one worker."""

    number: int
    name: str
    endpoint: str
    #: None for a worker that the broker did not start.
    process: Process | None = None
    #: Its own public key; empty if it uses that of the broker, or no keys.
    key: bytes = b""
    #: The key with which it joined, which the broker has admitted; empty if no keys are used.
    admission: bytes = b""
    joined_at: float = 0.0
    #: True once the broker has reached this run at its endpoint. Not needed for a worker that the broker started.
    is_reached: bool = False
    #: True while the broker is trying that; how often it has failed, and when the next attempt may begin.
    is_reaching: bool = False
    failed_attempts: int = 0
    next_attempt: float = 0.0
    wanted: WantedState = WantedState.AWAKE
    #: The operator who has ordered the wanted state, for people; empty if the operator is not known.
    operator: str = ""
    state: WorkerState = WorkerState.STARTING
    #: The run that has registered, 0 if there is none, and the token that proves to be that run.
    epoch: int = 0
    token: bytes = b""
    #: The address for orders to that run, and its host; empty for a process that the broker has started.
    route: object = None
    host: str = ""
    #: The last heartbeat of that run.
    heartbeat: Heartbeat = NO_HEARTBEAT
    #: Time of the last heartbeat, or of the start or registration if there was none.
    last_heartbeat_at: float = 0.0
    reason: str = ""
    complaints: int = 0

    @property
    def pid(self) -> int:
        """The id of its process; 0 if the process does not run, or if the broker did not start it."""
        return self.process.pid if self.process is not None else 0

    @property
    def started_at(self) -> float:
        """When its process was started or, if the broker did not start it, when it joined; 0 if it is gone."""
        if self.process is not None:
            return self.process.started_at if self.process.pid else 0.0
        return 0.0 if self.is_down else self.joined_at

    @property
    def is_down(self) -> bool:
        return self.state in (WorkerState.DEAD, WorkerState.FAILED, WorkerState.LOST)
