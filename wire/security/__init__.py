"""Key files, and the ZAP handler that admits clients by their keys."""
