"""The broker (server 5): supervises the workers, publishes their status, carries out the operators' orders.

Does not send file data: running downloads continue while the broker is frozen.
"""
