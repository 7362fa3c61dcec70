"""A client's connections: which to open and when, the sockets, and the time limit without progress."""
