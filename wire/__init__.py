"""The contract shared by broker, workers and client: what may be said, and what the words mean.

Everything here is a plain value or a function of its arguments. There is no socket, no process and
no policy in this package.
"""
