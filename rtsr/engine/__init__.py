"""A hop's way at 48 kHz between two blocks of a caller, and the sources of its high band."""
