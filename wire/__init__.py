"""The contract shared by broker, workers and client: what may be said, and what the words mean.

There is no process and no policy in this package, and nearly everything is a plain value or a
function of its arguments. What is not: ``config_file`` reads ``config.toml``, ``endpoints`` resolves
the names of hosts, and ``sockets`` tunes and reads the sockets that its callers open, and raises
the limit of how many these may be.
"""
