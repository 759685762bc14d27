"""A hop's way at 48 kHz, from a caller's block to a caller's block, and the sources of its high band."""
