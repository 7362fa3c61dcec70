"""Determines which version of which file to download, and fetches its manifest."""
