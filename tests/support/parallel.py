"""How the tests are shared out where several processes run them (`pytest -n`)."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Their tests share what takes long to make: one process has it.
_WHOLE = ("tests/cluster/beside/", "tests/deploy/image/", "tests/deploy/")
# What takes longest goes first, so that no process has much left when the others are done.
_ROOMS = (
    "tests/vm/",
    "tests/deploy/image/",
    "tests/deploy/",
    "tests/cluster/",
    "tests/kernel/",
    "tests/",
)


class ByFile(LoadScopeScheduling):
    """Gives a process all tests of a file, and of some folders."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        config.option.loadscopereorder = False  # a file of many tests need not take long
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in _WHOLE if file.startswith(folder)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Use it."""
    return ByFile(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the long ones first; one process alone keeps its shuffled order."""
    if hasattr(config, "workerinput"):
        items.sort(
            key=lambda item: next(i for i, r in enumerate(_ROOMS) if item.nodeid.startswith(r))
        )
