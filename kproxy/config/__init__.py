"""KubeProxyConfiguration: its fields, values, reading, checks, and what it comes to."""
