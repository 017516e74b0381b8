"""What happens to traffic when something goes wrong: a whole proxy on a node of namespaces."""
