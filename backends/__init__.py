"""The data paths, one package each. `kproxy.proxy` alone imports them."""
