"""kproxy beside the real kube-proxy, which has to be told apart by nobody."""
