"""Where the shots of a file begin."""
