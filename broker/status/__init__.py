"""The state of the servers as operators and clients see it: snapshots, history, events, metrics."""
