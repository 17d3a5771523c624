"""Sampling and what goes into it: runs, long runs, the original's samplers, conditioning."""
