"""MIDI knobs: the ports, the map from knobs to controls, and the listener."""
