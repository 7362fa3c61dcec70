"""The broker's sockets and its signal descriptor."""
