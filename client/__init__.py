"""The client: finds the shared files, downloads one from all workers at once and verifies it."""
