"""The broker (server 5): supervises the workers, publishes their status and carries out operators' orders.

Does not send file data, so running downloads continue even while the broker is frozen.
"""
