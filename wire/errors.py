"""The errors that users see, each with its exit code.

::

    MsdError                  base class; an internal error if raised     1
    ├── UsageError            wrong flags or configuration                2
    ├── NotFoundError         the servers share no such file              3
    ├── NotAllowedError       a key, a role or a policy forbids it        4
    ├── SourceError           the file changed, or every copy is corrupt  5
    ├── DiskError             local disk: space, permissions or I/O       6
    ├── NoAnswerError         no server answered in time                  7
    ├── Interrupted           SIGINT or SIGTERM                     130, 143
    ├── OutputClosedError     the reader of the output closed it        141
    └── ProtocolError         a peer sent a malformed message             1

An error message is one line that says what is wrong and how to fix it. A ``ProtocolError`` is the fault of the remote
side. The code that reads the socket catches this error, so users do not see it.
"""

from __future__ import annotations

from collections.abc import Sequence


class MsdError(Exception):
    """Base class of all errors; ``str(error)`` is the line shown to the user.

    ``arguments`` are the arguments of the Python API that may help; the command line adds the corresponding flags.
    """

    exit_code = 1

    def __init__(self, message: str, *, arguments: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.arguments = arguments


class UsageError(MsdError):
    """Wrong arguments, flags or configuration."""

    exit_code = 2


class NotFoundError(MsdError):
    """The servers share no such file. ``name`` is the requested name, None if no name was given; ``names`` lists names
    of shared files, but not necessarily all.
    """

    exit_code = 3

    def __init__(self, message: str, name: str | None = None, names: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.names = names


class NotAllowedError(MsdError):
    """A key, a role or a policy forbids the operation."""

    exit_code = 4


class SourceError(MsdError):
    """The shared file changed, or no worker sends valid data."""

    exit_code = 5


class DiskError(MsdError):
    """The local disk failed: no space, no permission, or an I/O error."""

    exit_code = 6


class NoAnswerError(MsdError):
    """No server answered in time."""

    exit_code = 7


class Interrupted(MsdError):
    """A signal ended the command. The exit code is 128 plus the signal number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class OutputClosedError(MsdError):
    """The program that reads the output closed it. The command ends without a message, like a program that SIGPIPE
    ends.
    """

    exit_code = 141


class ProtocolError(MsdError):
    """A peer sent bytes that are not a valid message of the protocol. ``rid`` is the id of the request that the message
    was meant to be; None if it cannot be read.
    """

    def __init__(self, message: str, rid: int | None = None) -> None:
        super().__init__(message)
        self.rid = rid
