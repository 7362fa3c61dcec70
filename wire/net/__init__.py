"""ZeroMQ socket options, monitors of connecting sockets, and endpoints."""
