"""Hashes the shared files into a catalogue and keeps it up to date."""
