"""The flags that several commands share, and how the words of every command are parsed.

The only module of ``wire`` that imports Typer. Only the modules that define commands import it.
"""

from __future__ import annotations

import functools
import inspect
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from msd.wire.config.servers import Servers
    from msd.wire.config.settings import Config

R = TypeVar("R")

#: ``msd toggle`` takes worker numbers, which may follow the ports: numbers up to the maximum number of workers,
#: ``msd.wire.config.toml_file.MAX_WORKERS``, are not ports there. Importing it here would be slow.
MAX_WORKER_NUMBER = 64


class Ports(tuple[int, ...]):
    """The ports of the workers, then the port of server 5."""

    __slots__ = ()


def _parse_ports(text: str) -> Ports:
    return Ports(int(word) for word in text.split())


def _parse_client_ports(text: str) -> Ports:
    ports = _parse_ports(text)
    if len(ports) < 2:
        raise typer.BadParameter("give the port of each worker and of server 5")
    return ports


ConfigFlag = Annotated[
    str | None, typer.Option("-c", "--config", metavar="FILE", help="Configuration file.  [./config.toml]")
]
_PORTS_METAVAR, _PORTS_HELP = "P1 P2 P3 P4 P5", "Ports of the workers and of server 5."
PortsFlag = Annotated[
    Ports | None,
    typer.Option("-p", "--ports", metavar=_PORTS_METAVAR, parser=_parse_client_ports, help=_PORTS_HELP),
]
#: For the servers: one port if all workers join from elsewhere.
ServerPortsFlag = Annotated[
    Ports | None,
    typer.Option("-p", "--ports", metavar=_PORTS_METAVAR, parser=_parse_ports, help=_PORTS_HELP),
]
VerboseFlag = Annotated[
    bool, typer.Option("--verbose", help="Log events to standard error, one per line, with time and level.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Command(TyperCommand):
    """A command whose flags with one value may be given once only, and whose ``-p`` takes all numbers that follow it.

    Typer itself keeps the last value of a flag and drops the others silently, and gives each flag a fixed number of
    values.
    """

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        args = _join_ports(args, MAX_WORKER_NUMBER + 1 if self.name == "toggle" else 0)
        if not ctx.resilient_parsing:
            _, _, given = self.make_parser(ctx).parse_args([*args])
            for parameter in given:
                takes_one_value = parameter.nargs == 1 and not (
                    parameter.multiple or getattr(parameter, "is_flag", False)
                )
                if takes_one_value and given.count(parameter) > 1:
                    ctx.fail(f"{parameter.opts[0]} is given {given.count(parameter)} times: give it once")
        return super().parse_args(ctx, args)


def _join_ports(args: list[str], min_port: int) -> list[str]:
    """Joins the numbers from ``min_port`` on that follow ``-p`` to one word."""
    joined: list[str] = []
    rest = deque(args)
    while rest:
        joined.append(rest.popleft())
        if joined[-1] == "--":
            break
        if joined[-1] in ("-p", "--ports"):
            ports = []
            while rest and rest[0].isdecimal() and int(rest[0]) >= min_port:
                ports.append(rest.popleft())
            if ports:
                joined.append(" ".join(ports))
    return [*joined, *rest]


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
