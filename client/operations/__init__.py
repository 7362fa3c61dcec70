"""What a client does with the servers: download, verify and list files.

Each operation runs its own loop over the connection pool; what is decided is in
``scheduling``, ``manifest`` and ``network``.
"""
