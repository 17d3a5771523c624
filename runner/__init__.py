"""What run.py is made of: preparing an environment, running ComfyUI in it and talking to it. Standard library only."""
