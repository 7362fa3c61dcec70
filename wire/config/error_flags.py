"""Names the flags of the command line in the message of an error that names arguments of the Python API."""

from __future__ import annotations

from msd.wire.errors import MsdError

#: The flags for the arguments of the Python API that an error may name.
FLAGS = {
    "output": "-o",
    "update": "--update",
    "checksum": "--checksum",
    "pass_on": "--pass-on",
    "force": "--force",
    "id": "--id",
    "sha256": "--sha256",
    "check_space": "--no-space-check",
    "server5": "--server5",
    "server_key": "--server-key",
    "config": "-c",
    "listen": "--listen",
}


def with_flags(error: MsdError) -> str:
    """Returns the message of an error, with the flags that may help: in place of an argument at its beginning, and
    otherwise at its end.
    """
    message, named = str(error), []
    for argument in error.arguments:
        if message.startswith(f"{argument} "):
            message = FLAGS[argument] + message.removeprefix(argument)
        else:
            named.append(FLAGS[argument])
    return f"{message} ({', '.join(named)})" if named else message
