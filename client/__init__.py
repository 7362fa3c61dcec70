"""The client: finds out what is shared, fetches it from all workers at once, and verifies it."""
