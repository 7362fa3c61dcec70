"""Messages, their encoding, and the values in them. Pure."""
