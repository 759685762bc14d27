"""The live engine on a real sound server, for minutes or hours."""
