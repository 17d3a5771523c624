"""What scores a shot, each by some of its frames."""
