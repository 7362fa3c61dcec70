"""Formats snapshots as human-readable text. Pure: prints nothing."""
