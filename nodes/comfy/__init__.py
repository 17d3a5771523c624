"""The only place that touches ComfyUI's internals: a ComfyUI release that moves something changes files here."""
