"""The clock of everything between the resamplers: its rate, its step, and its cross-fade."""

#: Hz
SAMPLE_RATE = 48000
#: samples of one step, 10 ms
HOP = 480
#: samples that the frames of two steps share, 2.5 ms
OVERLAP = 120
