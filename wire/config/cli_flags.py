"""The flags that several commands share: how to find the servers, and the format of the output.

The only module of ``wire`` that imports Typer. Only the modules that define commands import it.
"""

from __future__ import annotations

from typing import Annotated

import typer

Ports = tuple[int, int, int, int, int]

ConfigFlag = Annotated[
    str | None, typer.Option("-c", "--config", metavar="FILE", help="Configuration file.  [./config.toml]")
]
HostFlag = Annotated[str | None, typer.Option("-a", "--address", metavar="HOST", help="IP address of the servers.")]
PortsFlag = Annotated[
    Ports | None,
    typer.Option("-p", "--ports", metavar="P1 P2 P3 P4 P5", help="Ports of the four workers and of server 5."),
]
Server5Flag = Annotated[
    str | None, typer.Option("--server5", metavar="HOST:PORT", help="Address of server 5, which lists the workers.")
]
ServerKeyFlag = Annotated[
    str | None, typer.Option("--server-key", metavar="KEY", help="Public key of the servers, printed by msd serve.")
]
VerboseFlag = Annotated[
    bool, typer.Option("--verbose", help="Log events to standard error, one per line, with time and level.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
