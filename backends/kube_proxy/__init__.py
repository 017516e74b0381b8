"""Taking over: finding and removing what kube-proxy left behind."""
