"""Decides whether the servers use keys, and refuses to serve other machines without them.

Does not admit connections: see ``wire/security/zap.py``.
"""

from __future__ import annotations

from msd.wire.config.settings import Config
from msd.wire.errors import NotAllowedError
from msd.wire.net.endpoints import Endpoint
from msd.wire.security.keys import SERVER, KeyPair


def exposed_endpoint(config: Config) -> Endpoint | None:
    """Returns the first endpoint of the servers that other machines can reach, None if there is none."""
    endpoints = (config.status, *(worker.endpoint for worker in config.workers))
    return next((endpoint for endpoint in endpoints if not endpoint.is_loopback), None)


def uses_keys(config: Config) -> bool:
    """Returns True if the servers use keys: by configuration, or because other machines can reach them."""
    if config.security:
        return config.security == "curve"
    return config.keys is not None or exposed_endpoint(config) is not None


def load_server_keys(config: Config) -> KeyPair | None:
    """Returns the servers' key pair, None if they use no keys. Raises ``NotAllowedError`` if the pair is missing."""
    if not uses_keys(config):
        return None
    pair = config.key_folder.load(SERVER)
    exposed = exposed_endpoint(config)
    if pair is None and exposed is not None:
        raise NotAllowedError(
            f"{exposed.host} can be reached from other machines, and anyone there could read the shared"
            ' files: create keys with msd keys init, or set security = "none" under [broker] in config.toml'
        )
    if pair is None:
        raise NotAllowedError(f"no server key in {config.key_folder.path}: create it with msd keys init")
    return pair
