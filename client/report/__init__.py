"""Reports on a download: totals, event log, JSON values, report file and chart."""
