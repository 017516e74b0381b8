"""When to apply: coalescing, retry, repair."""
