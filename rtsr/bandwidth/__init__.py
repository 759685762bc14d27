"""Where the real content of a sound ends: of a running stream and of a whole file."""
