"""The commands of ``msd keys``: create keys, admit and revoke clients and operators.

Defines flags and prints results; ``wire/security/keys.py`` handles the keys and is imported only when a command runs.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from msd.wire.config.cli_flags import ConfigFlag

if TYPE_CHECKING:
    from msd.wire.security.keys import KeyFolder

keys = typer.Typer(name="keys", help="Create, admit and revoke keys.", rich_markup_mode=None)


@keys.command()
def init(config: ConfigFlag = None) -> None:
    """Create the servers' key pair (run on the servers' machine).

    Example: msd keys init
    """
    folder = _key_folder(config)
    pair = folder.init()
    print(f"the servers' public key is {pair.public.hex()}")
    print(f"the secret key is stored in {folder.path}: do not share it; msd serve prints the command for clients")


@keys.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key.")], config: ConfigFlag = None
) -> None:
    """Create your own key pair (run on the machine that uses it).

    Example: msd keys new laptop
    """
    pair, public = _key_folder(config).new(name)
    print(f"{name} {pair.public.hex()}")
    print(
        f"the same line is in {public}: copy this file to the servers and run"
        f" msd keys admit {public.name} --role client (or --role worker, for msd worker)"
    )


@keys.command()
def admit(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The public key: a file NAME.pub, or - for standard input.")
    ],
    role: Annotated[
        Literal["client", "operator", "worker"],
        typer.Option(help="What the key may do; operators may also toggle workers and shut the servers down."),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Admit the key as NAME.  [default: the name in FILE]")
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="Admit the key for this time, such as 12h or 7d.  [no limit]"),
    ] = None,
    config: ConfigFlag = None,
) -> None:
    """Admit a public key (run on the servers' machine). To change its role or time, admit it again.

    Example: msd keys admit laptop.pub --role client
    """
    from msd.wire.security.keys import Role
    from msd.wire.support.units import format_date

    expires = math.inf if duration is None else time.time() + _parse_duration(duration)
    admitted = _key_folder(config).admit(_read_public_key(file), Role(role), name, expires=expires)
    until = "" if duration is None else f" until {format_date(expires)}"
    print(f"{admitted.name} is admitted as {admitted.role}{until}")


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key.")], config: ConfigFlag = None
) -> None:
    """Revoke a key; its connections are closed within two seconds.

    Example: msd keys revoke laptop
    """
    _key_folder(config).revoke(name)
    print(f"{name} is revoked")


@keys.command("list")
def list_keys(config: ConfigFlag = None) -> None:
    """List this machine's own keys and the keys admitted to its servers.

    Example: msd keys list
    """
    from msd.wire.security.keys import SERVER
    from msd.wire.support.presentable_names import presentable
    from msd.wire.support.units import format_date

    folder = _key_folder(config)
    for name in (SERVER, *folder.pair_names()):
        if (pair := folder.load(name)) is not None:
            print(f"own       {name:<20} {pair.public.hex()}")
    for admitted in folder.admitted_keys():
        limits = [f"for {presentable(admitted.scope)} alone"] if admitted.scope else []
        if admitted.expires < math.inf:
            verb = "expired" if admitted.expires <= time.time() else "expires"
            limits.append(f"{verb} {format_date(admitted.expires)}")
        line = f"{admitted.role:<9} {admitted.name:<20} {admitted.key.hex()}  {', '.join(limits)}"
        print(line.rstrip())


def mount(app: typer.Typer) -> None:
    """Adds these commands to ``app``."""
    app.add_typer(keys)


def _key_folder(config: str | None) -> KeyFolder:
    from msd.wire.config.settings import load

    return load(config).key_folder


def _parse_duration(text: str) -> float:
    from msd.wire.config.toml_file import parse_duration
    from msd.wire.errors import UsageError

    try:
        return parse_duration(text)
    except ValueError as allowed:
        raise UsageError(f"--for {text!r}: must be {allowed}") from None


def _read_public_key(file: str) -> str:
    import sys
    from pathlib import Path

    from msd.wire.errors import UsageError

    try:
        return sys.stdin.read(4096) if file == "-" else Path(file).read_text(encoding="ascii")[:4096]
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or 'not a public key'}") from None
