"""How fast: step times, streams, start-up, single calls, training steps."""
