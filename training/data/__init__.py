"""What a trainer is fed with: clips, the shapes they are brought to, and the batches of an epoch."""
