"""What a download of several files consists of: the selected files, and the units in which they are requested."""
