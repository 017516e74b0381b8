"""kube-proxy's command line: its flags, their values and their text."""
