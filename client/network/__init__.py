"""Connections of a client: which to open, how to open them, and when to stop waiting for them."""
