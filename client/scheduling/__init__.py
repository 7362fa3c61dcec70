"""Decides which worker is asked for which segment. Pure: no socket, clock, file or payload."""
