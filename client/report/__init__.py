"""What is left of a finished download: totals, the report file, and its chart."""
