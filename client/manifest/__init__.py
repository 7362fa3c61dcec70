"""Finds out which version of which file to fetch, and its segment digests."""
