"""The broker's sockets, held ports and signal descriptor."""
