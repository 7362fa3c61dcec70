"""Decides which worker is asked for which segment. Pure: no sockets, clocks, files or payloads."""
