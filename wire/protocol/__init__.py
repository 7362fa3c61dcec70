"""Messages, their encoding, and the values in them: segments, manifests and states. Pure."""
