"""Code shared by the broker, the workers and the client: the protocol, configuration, sockets and keys.

::

    errors      the errors that users see, with their exit codes
    protocol/   messages, their encoding, segments and states (pure)
    config/     defaults, config.toml and the flags that all commands share
    net/        ZeroMQ socket options, monitors and endpoints
    security/   key files, and the ZAP handler that admits keys
    support/    small helpers: text, units, log lines, output, malloc, stall detection

Contains no logic of the broker, the workers or the client. Only ``config``, ``net``, ``security`` and ``support`` touch
files, sockets or the process.
"""
