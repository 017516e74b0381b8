"""A fake Kubernetes API server that can do what a real one only does on bad days."""

from tests.support.fake_api.server import FakeApi

__all__ = ["FakeApi"]
