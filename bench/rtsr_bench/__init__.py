"""Benchmarks, the validation set and the floor that a network has to beat."""
