"""A run made ready: settings, clips and a network that belong together."""
