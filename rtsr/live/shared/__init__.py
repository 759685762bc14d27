"""What the sides of a live session share: one block of memory, its counters and events."""
