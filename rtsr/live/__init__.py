"""The engine between two audio devices, for hours: callback, worker, governor, controls."""
