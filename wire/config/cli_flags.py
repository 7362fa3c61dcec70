"""The flags by which every command finds the servers: WHERE in the documentation.

The only module here that imports Typer, and imported by the modules of commands alone.
"""

from __future__ import annotations

from typing import Annotated

import typer

Ports = tuple[int, int, int, int, int]

ConfigFlag = Annotated[
    str | None, typer.Option("-c", "--config", metavar="FILE", help="The configuration file.  [./config.toml]")
]
HostFlag = Annotated[str | None, typer.Option("-a", "--address", metavar="HOST", help="IP address of the servers.")]
PortsFlag = Annotated[
    Ports | None,
    typer.Option("-p", "--ports", metavar="P1 P2 P3 P4 P5", help="Ports of four workers and of server 5."),
]
Server5Flag = Annotated[
    str | None, typer.Option("--server5", metavar="HOST:PORT", help="Server 5, which knows all the others.")
]
ServerKeyFlag = Annotated[
    str | None, typer.Option("--server-key", metavar="KEY", help="The servers' key, as msd serve prints it.")
]
VerboseFlag = Annotated[
    bool, typer.Option("--verbose", help="Log to standard error: an event a line, with time, level and worker.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
