"""The errors a user can meet, each with its exit code.

::

    MsdError                  a bug, if it is ever seen as such           1
    ├── UsageError            wrong flags, wrong configuration            2
    ├── NotFoundError         no such file on the servers                 3
    ├── NotAllowedError       a key, a role or a policy forbids it        4
    ├── SourceError           the source changed, or every source is bad  5
    ├── DiskError             the local disk: room, rights, faults        6
    ├── NoAnswerError         nobody answered in time                     7
    ├── Interrupted           SIGINT or SIGTERM                     130, 143
    └── ProtocolError         a peer said something that is no message    1

A message is one line that says what is wrong and what to do about it. ``ProtocolError`` is the
remote side's fault and is caught at the socket that received it; users never see it.
"""

from __future__ import annotations


class MsdError(Exception):
    """Base of all errors; ``str(error)`` is the one line shown to the user."""

    exit_code = 1


class UsageError(MsdError):
    """Wrong arguments, flags or configuration."""

    exit_code = 2


class NotFoundError(MsdError):
    """The servers share no such file."""

    exit_code = 3


class NotAllowedError(MsdError):
    """A key, a role or a policy forbids it."""

    exit_code = 4


class SourceError(MsdError):
    """The source changed, or no source sends valid data."""

    exit_code = 5


class DiskError(MsdError):
    """The local disk failed: no space, no permission, or a fault."""

    exit_code = 6


class NoAnswerError(MsdError):
    """No server answered in time."""

    exit_code = 7


class Interrupted(MsdError):
    """A signal ended the command; its number plus 128 is the exit code."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class ProtocolError(MsdError):
    """Bytes from a peer that are not a message of the protocol."""
