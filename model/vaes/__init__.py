"""The video VAEs, one a generation, and what they are made of."""
