"""ComfyUI's CLIP: the T5 text encoder, and the weights that a prompt gives its words."""
