"""Serves the requests of clients."""
