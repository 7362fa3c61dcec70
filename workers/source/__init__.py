"""The shared files: the catalogue that describes them, and reading them from disk."""
