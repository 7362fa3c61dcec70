"""ZeroMQ sockets, their monitors, and the endpoints they bind or connect to."""
