"""Checkpoints: what a file is, whether it fits, and the module for it."""
