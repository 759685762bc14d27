"""From trained weights to a single ONNX file that needs nothing else to run."""
