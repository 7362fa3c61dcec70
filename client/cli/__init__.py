"""The client's commands: their flags and help texts, and what they print."""
