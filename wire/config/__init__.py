"""The configuration: built-in defaults, ``config.toml`` and the flags all commands share."""
