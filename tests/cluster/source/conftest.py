"""The servers that the source follows."""

from tests.support.fake_api.fixtures import fake, server

__all__ = ["fake", "server"]
