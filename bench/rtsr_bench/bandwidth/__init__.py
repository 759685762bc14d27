"""How soon and how often the bandwidth detector moves."""
