"""The worker: makes the enhanced sound, hop by hop, and chooses what it can afford."""
