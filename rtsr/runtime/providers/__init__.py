"""Execution providers: which are installed, how one is asked for, and what starts a session on it."""
