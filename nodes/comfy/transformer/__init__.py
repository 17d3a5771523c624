"""ComfyUI's MODEL: the transformers as BaseModels, and what sampling changes or asks of them."""
