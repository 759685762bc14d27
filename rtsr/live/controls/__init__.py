"""What can be turned while the sound goes on, and what turns it: keys and MIDI knobs."""
