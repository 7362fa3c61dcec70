"""Which receivers pass on which download: the core that the broker asks."""
