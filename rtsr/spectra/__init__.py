"""Short-time spectra, and powers of bands in them."""
