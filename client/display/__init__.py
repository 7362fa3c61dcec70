"""Shows a running download to a person or a program."""
