"""What the fake API server answers as the real one does."""
