"""Text for people, made from snapshots. Pure: prints nothing."""
