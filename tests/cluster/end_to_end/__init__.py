"""kproxy in kube-proxy's place: a real API server, a node of namespaces, and packets."""
