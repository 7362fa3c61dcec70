"""The worker of a download that passes on what it has received."""
