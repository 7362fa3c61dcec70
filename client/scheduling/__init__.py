"""Decides which worker is asked for which unit. Pure: no sockets, clocks, files or payloads."""
