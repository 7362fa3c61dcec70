"""Downloads that pass on what they have received, and get from others that do."""
