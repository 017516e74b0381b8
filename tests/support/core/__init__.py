"""Objects and whole clusters to try."""
