"""The operator's side of the control and status sockets: requests, the status feed, the console."""
