"""One worker process: it answers requests for the segments of the shared files.

A worker knows nothing of the other workers, and nothing of the clients but their requests.
"""
