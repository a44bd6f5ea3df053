"""One file for each middleware, and one for what they have in common."""
