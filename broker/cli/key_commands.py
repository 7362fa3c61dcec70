"""The commands of ``msd keys``: who the servers are, and who may come in.

Imports nothing heavy: what a command needs is imported when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from msd.wire.config.cli_flags import ConfigFlag

if TYPE_CHECKING:
    from msd.wire.security.keys import KeyFolder

keys = typer.Typer(name="keys", help="Make keys, and say who may come in.", rich_markup_mode=None)


@keys.command()
def init(config: ConfigFlag = None) -> None:
    """Make the servers' own key, on the machine of the servers.

    Example: msd keys init
    """
    folder = _folder(config)
    pair = folder.init()
    print(f"the servers' key is {pair.public.hex()}")
    print(f"its secret lies in {folder.path}, and nobody else needs it; msd serve shows what clients need")


@keys.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the key.")], config: ConfigFlag = None
) -> None:
    """Make a key of your own, on the machine where you will use it.

    Example: msd keys new laptop
    """
    pair, public = _folder(config).new(name)
    print(f"{name} {pair.public.hex()}")
    print(f"this line, which is also in {public}, is for the servers: msd keys admit {public.name} --role client")


@keys.command()
def admit(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A public key: NAME.pub, or - for standard input.")],
    role: Annotated[
        Literal["client", "operator", "worker"], typer.Option(help="What it may do: operators also give orders.")
    ],
    config: ConfigFlag = None,
) -> None:
    """Admit somebody's public key, on the machine of the servers.

    Example: msd keys admit laptop.pub --role client
    """
    from msd.wire.security.keys import Role

    admitted = _folder(config).admit(_read(file), Role(role))
    print(f"{admitted.name} is admitted as {admitted.role}")


@keys.command()
def revoke(name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key.")], config: ConfigFlag = None) -> None:
    """Admit somebody no longer; connections of that key end within two seconds.

    Example: msd keys revoke laptop
    """
    _folder(config).revoke(name)
    print(f"{name} is not admitted any more")


@keys.command("list")
def list_keys(config: ConfigFlag = None) -> None:
    """Show the keys of this machine, and who is admitted to its servers.

    Example: msd keys list
    """
    from msd.wire.security.keys import SERVER

    folder = _folder(config)
    for name in (SERVER, *folder.pairs()):
        if (pair := folder.load(name)) is not None:
            print(f"own       {name:<20} {pair.public.hex()}")
    for admitted in folder.admitted():
        print(f"{admitted.role:<9} {admitted.name:<20} {admitted.key.hex()}")


def mount(app: typer.Typer) -> None:
    """Adds these commands to ``app``."""
    app.add_typer(keys)


def _folder(config: str | None) -> KeyFolder:
    from msd.wire.config.settings import load

    return load(config).key_folder


def _read(file: str) -> str:
    import sys
    from pathlib import Path

    from msd.wire.errors import UsageError

    try:
        return sys.stdin.read(4096) if file == "-" else Path(file).read_text(encoding="ascii")[:4096]
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or 'not a public key'}") from None
