"""The shared files: the catalogue that describes them, and reads from the disk."""
