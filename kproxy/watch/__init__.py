"""Sources of API objects: a folder of manifests, the API server."""
