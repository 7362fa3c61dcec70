"""Formats snapshots as text for people. Pure: prints nothing."""
