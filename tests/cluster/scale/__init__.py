"""At the size that the goals are stated for."""
