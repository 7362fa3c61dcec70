"""The broker's own terminal: output, input lines, and the console process."""
