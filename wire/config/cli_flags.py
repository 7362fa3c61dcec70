"""The flags that several commands share: how to find the servers, and the format of the output.

The only module of ``wire`` that imports Typer. Only the modules that define commands import it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from msd.wire.config.servers import Servers
    from msd.wire.config.settings import Config

R = TypeVar("R")

ConfigFlag = Annotated[
    str | None, typer.Option("-c", "--config", metavar="FILE", help="Configuration file.  [./config.toml]")
]
PortsFlag = Annotated[
    tuple[int, int, int, int, int] | None,
    typer.Option("-p", "--ports", metavar="P1 P2 P3 P4 P5", help="Ports of the four workers and of server 5."),
]
VerboseFlag = Annotated[
    bool, typer.Option("--verbose", help="Log events to standard error, one per line, with time and level.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class ServerFlags(NamedTuple):
    """The values of the flags that locate the servers."""

    config: ConfigFlag = None
    host: Annotated[str | None, typer.Option("-a", "--address", metavar="HOST", help="IP address of the servers.")] = (
        None
    )
    ports: PortsFlag = None
    server5: Annotated[
        str | None,
        typer.Option("--server5", metavar="HOST[:PORT]", help="Address of server 5, which lists the workers."),
    ] = None
    server_key: Annotated[
        str | None, typer.Option("--server-key", metavar="KEY", help="Public key of the servers, printed by msd serve.")
    ] = None

    def find(self) -> Servers:
        """Locates the servers. Raises ``MsdError``."""
        return self.load()[1]

    def load(self) -> tuple[Config, Servers]:
        """Reads the configuration and locates the servers. Raises ``MsdError``."""
        from msd.wire.config.servers import locate_servers
        from msd.wire.config.settings import load

        settings = load(self.config)
        return settings, locate_servers(
            settings, host=self.host, ports=self.ports, server5=self.server5, server_key=self.server_key
        )


def with_server_flags(command: Callable[..., R]) -> Callable[..., R]:
    """Gives a command the flags that locate the servers, in front of its own flags. The command receives a
    ``ServerFlags`` as its first argument.
    """
    return _CommandWithServerFlags(command)


class _CommandWithServerFlags:
    def __init__(self, command: Callable[..., Any]) -> None:
        functools.update_wrapper(self, command)
        self._command = command

    def __call__(self, **values: Any) -> Any:
        flags = ServerFlags(*[values.pop(name, None) for name in ServerFlags._fields])
        return self._command(flags, **values)

    @functools.cached_property
    def __signature__(self) -> inspect.Signature:
        """The parameters from which Typer makes the flags; computed on demand, for the command that runs only."""
        _, *parameters = inspect.signature(self._command, eval_str=True).parameters.values()
        parameters[:0] = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in get_type_hints(ServerFlags, include_extras=True).items()
        ]
        return inspect.Signature([parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters])
