"""Many independent streams through one model, stepped together as one batch."""
