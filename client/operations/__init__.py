"""The client's operations: download, verify and list files.

Each operation runs its own loop over the connection pool. The decisions are made in ``scheduling``, ``manifest`` and
``network``.
"""
