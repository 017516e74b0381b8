"""The configuration beside that of the real kube-proxy."""
