"""Execution providers: which are installed, how one is asked for, how a session starts on it."""
