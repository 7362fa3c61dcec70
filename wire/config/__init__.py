"""The configuration: built-in defaults, ``config.toml``, and the flags that all commands share."""
