"""The operator's side of the control and status sockets: orders, the status feed, the console."""
