"""The API server as a source of objects: how to reach it, list and watch, and events."""
