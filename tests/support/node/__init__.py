"""A node of namespaces with a proxy on it, and what happens around it."""
