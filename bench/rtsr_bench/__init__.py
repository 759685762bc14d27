"""Benchmarks: speed, quality, bandwidth tracking and soaks."""
