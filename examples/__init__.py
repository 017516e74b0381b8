"""A realistic application (`shop/`), and `demo`, which runs it on a small network."""
