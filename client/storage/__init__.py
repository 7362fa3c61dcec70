"""Local files: the part file, an older output to update, and a file to verify."""
