"""Training in the graph: ComfyUI's models as encoders of the cache, its folders, its progress, a run in its midst."""
