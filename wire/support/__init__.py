"""Small helpers for the whole project: text, units, log lines, output, memory settings, stall detection."""
