"""The state of the system as operators and clients see it: snapshots, history, events, metrics."""
