"""The trainer, and what its steps are made of."""
