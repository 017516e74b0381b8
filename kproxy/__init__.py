"""A Kubernetes Service proxy: one meaning, several kernel data paths."""

__version__ = "0.1.0"
