"""The command ``msd worker``: a worker on its own, which joins servers on any machine."""
