"""Running an exported graph: providers, bundled models, their metadata, a session and its state."""
