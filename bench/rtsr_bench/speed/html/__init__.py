"""Reports of `rtsr bench speed` as one self-contained page."""
