"""The sound devices: which there are, opening them, and their latency."""
