"""Small functions that every folder needs: text, units, memory settings, stall detection."""
