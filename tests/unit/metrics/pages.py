"""The page of metrics as a scraper reads it."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_INSIDE_HISTOGRAMS = ("_bucket", "_sum", "_count")


@dataclass(frozen=True, slots=True)
class Shape:
    """What one metric looks like, whatever its values are."""

    kind: str
    labels: frozenset[str]
    bounds: tuple[str, ...]  # as they are written, without +Inf


class Page:
    """A scrape."""

    def __init__(self, metrics):
        self.content_type, body = metrics.expose()
        self.text = body.decode()
        self.families = {}
        for family in text_string_to_metric_families(self.text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            self.families[name] = family

    def value(self, name, **labels):
        """Return the value of the one series of that name and these labels."""
        (value,) = (
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        )
        return value

    def values(self, name, label):
        """Return the values of all series of that name by one label."""
        return {sample.labels[label]: sample.value for sample in self.families[name].samples}

    def shapes(self):
        """Return what each metric looks like."""
        return {name: _shape(name, family) for name, family in self.families.items()}


def _shape(name, family):
    labels, bounds = set(), []
    for sample in family.samples:
        labels |= sample.labels.keys()
        bounds.append(sample.labels.get("le", "+Inf"))
        suffixes = _INSIDE_HISTOGRAMS if family.type == "histogram" else ("",)
        assert sample.name in {f"{name}{suffix}" for suffix in suffixes}
    unique = tuple(bound for bound in dict.fromkeys(bounds) if bound != "+Inf")
    return Shape(family.type, frozenset(labels - {"le"}), unique)
