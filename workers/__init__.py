"""The processes that share files: workers answer requests for segments; the indexer keeps the catalogue up to date.

A worker does not know the other workers, and knows clients only by their requests.
"""
