"""As much as a budget of seconds can tell about a machine."""
