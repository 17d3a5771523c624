"""What run.py is made of: an environment and a server in it; what a ComfyUI has of the names that the pack uses."""
