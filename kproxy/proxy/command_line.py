"""What a process in kube-proxy's place was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kproxy.config.loading import Loaded


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command line, read and checked.

    - `master`: the address of the API server, "" if the kubeconfig or the pod has it.
    - `config_file`: the file that the configuration came from and that may change.
    - `flags`: the value of every flag, given or not, as text.
    """

    loaded: Loaded
    node_name: str
    master: str
    config_file: Path | None
    flags: Mapping[str, str] = field(default_factory=dict)
