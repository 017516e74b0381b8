"""The source that follows an API server, against a fake and a real one."""
