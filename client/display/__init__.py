"""Displays a download: as lines, as a log, as JSON or as a live view."""
