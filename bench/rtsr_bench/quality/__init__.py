"""How good: metrics, artefacts and the ridge baseline on recordings."""
