"""The diffusion transformers, one file a generation, on one skeleton."""
