"""The servers that the contract is about."""

from tests.support.fake_api.fixtures import fake, server

__all__ = ["fake", "server"]
