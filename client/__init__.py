"""The client: lists the shared files, downloads a file from all workers at once and verifies it."""
