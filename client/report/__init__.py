"""Reports a download: totals, event log, JSON values, the report file and its chart."""
