"""Starts, watches and restarts the workers and the indexer."""
