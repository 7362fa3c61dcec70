"""What a broker and a worker on its own have in common to share files: their folder, and the indexer's process."""
