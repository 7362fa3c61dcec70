"""The operator's commands: their flags, and the demo. Each command imports what it needs when it runs."""
