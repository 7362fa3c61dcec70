"""Small helpers that every folder needs: text, units, log lines, output, memory settings, stall detection."""
