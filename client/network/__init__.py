"""A client's connections: which to open and when, the sockets, and the timeout for a client without progress."""
