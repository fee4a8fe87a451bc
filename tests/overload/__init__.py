"""Ten times what a deployment can answer: what is still answered, what is refused, and whose."""
