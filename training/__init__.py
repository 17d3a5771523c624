"""Training: what any run needs, and in tiny/ the recipe of the bundled model, its first user."""
