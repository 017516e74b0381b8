"""HTTP: health, metrics, and the health ports of load balancers, all in the one event loop."""
