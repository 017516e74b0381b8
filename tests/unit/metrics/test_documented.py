"""deploy/metrics.md names every metric, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from kproxy.config.fields import Mode
from tests.unit.metrics.shown import shapes

PAGE = Path(__file__).parents[3] / "deploy" / "metrics.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", re.MULTILINE)


def test_each_metric_is_documented_with_its_type_and_labels():
    shown = {name: shape for mode in Mode for name, shape in shapes(mode).items()}
    of_the_fake_data_path = {name for name in shown if name.startswith("kproxy_memory_")}
    documented = {
        name: (kind, {label.strip() for label in labels.split(",")} - {""})
        for name, kind, labels in ROW.findall(PAGE.read_text(encoding="utf-8"))
    }
    assert documented == {
        name: (shape.kind, set(shape.labels))
        for name, shape in shown.items()
        if name not in of_the_fake_data_path
    }


def test_no_metric_is_documented_twice():
    names = [name for name, _, _ in ROW.findall(PAGE.read_text(encoding="utf-8"))]
    assert len(names) == len(set(names))
