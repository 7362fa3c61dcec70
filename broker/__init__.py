"""Server 5: supervises the workers, publishes their status, takes the operators' orders.

Never in the path of the data: while the broker is frozen, running downloads go on.
"""
