"""The bounds of histograms, in seconds."""

from __future__ import annotations

# kube-proxy's pkg/proxy/metrics/metrics.go: doubling from 1 ms.
DURATION = tuple(0.001 * 2**n for n in range(15))

# The same file: fine where it should be, coarse up to five minutes.
PROGRAMMING = (
    0.25,
    0.5,
    *(float(second) for second in range(1, 60)),
    *(float(second) for second in range(60, 120, 5)),
    *(float(second) for second in range(120, 301, 30)),
)

# client-go's latency of requests, as component-base registers it.
REQUEST = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)

# What ends within milliseconds, unless it is the first time: from 100 µs to 3.3 s.
SHORT_DURATION = tuple(0.0001 * 2**n for n in range(16))
