"""Ways to call the command line."""

import pytest
from click.testing import CliRunner

from kproxy.cli.group import main
from tests.support.cli import config, manifests, spawn

__all__ = ["config", "manifests", "spawn"]


@pytest.fixture
def invoke():
    """Call the command line in this process."""

    def call(*arguments, stdin=None):
        return CliRunner().invoke(main, [str(each) for each in arguments], input=stdin)

    return call
