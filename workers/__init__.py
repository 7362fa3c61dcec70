"""One worker process: answers requests for segments of the shared files.

A worker does not know the other workers, and knows clients only by their requests.
"""
