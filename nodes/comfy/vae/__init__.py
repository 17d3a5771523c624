"""ComfyUI's VAE: the VAEs of every generation, chunk by chunk within the memory there is."""
