"""The fake API server."""

from tests.support.fake_api.fixtures import fake

__all__ = ["fake"]
