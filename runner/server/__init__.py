"""An environment, a ComfyUI that runs in it, and how to talk to that server."""
