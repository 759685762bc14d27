"""Sound files, read and written as streams of blocks."""
