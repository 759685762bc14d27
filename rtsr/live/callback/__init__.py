"""The audio callback: compiled, between the device's buffers and the timelines."""
