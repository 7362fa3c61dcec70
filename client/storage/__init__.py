"""The local disk: the part file, an older copy to update, a copy to verify."""
