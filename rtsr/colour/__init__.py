"""Colour: what a voice, a microphone or a mix does to each missing band, the same all the time."""
