"""Key files, and the ZAP handler that admits keys."""
