"""How hard the property tests try.

`KPROXY_EFFORT=20` makes each try twenty times as many examples as in an ordinary run.
"""

import os

from hypothesis import HealthCheck, settings

_TIMES = int(os.environ.get("KPROXY_EFFORT", "1"))
_WHILE_BUSY = [HealthCheck.too_slow, HealthCheck.data_too_large]


def whatever_it_takes():
    """Let no property test fail for the time that an example takes: the machine may be busy."""
    settings.register_profile("kproxy", deadline=None, suppress_health_check=_WHILE_BUSY)
    settings.load_profile("kproxy")


def examples(count):
    """Settings for a property test with so many examples in an ordinary run."""
    return settings(max_examples=count * _TIMES)
