"""The operator's commands: their flags and help texts, and the demo."""
