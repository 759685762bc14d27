"""What a live session says about itself: figures, meters, the screen, files of figures."""
