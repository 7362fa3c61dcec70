"""Starts, monitors and restarts the workers and the indexer."""
