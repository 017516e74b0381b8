"""The data paths, one package each. Only the wiring in kproxy imports them."""
