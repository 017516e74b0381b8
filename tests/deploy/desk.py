"""The commands of the operator's pages, typed as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.deploy.shipped import DEPLOY, PAGE
from tests.support.cluster import programs
from tests.support.cluster.control_plane import ControlPlane
from tests.support.commands import output_of
from tests.support.waiting import LONGEST_S

_SHELL = ("bash", "-o", "pipefail", "-c")


def command(words: str, page: Path = PAGE) -> str:
    """Return the only command of a page that has these words, without the comment after it."""
    (only,) = {each for each in _commands(page) if words in each}
    return only


def block(language: str, words: str, page: Path = PAGE) -> str:
    """Return the only block of a page in this language that has these words."""
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^ *```", page.read_text(), re.DOTALL | re.M)
    (only,) = ((indent, text) for indent, text in blocks if words in text)
    indent, text = only
    return "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))


class Desk:
    """A folder with `deploy/` in it, and kubectl and helm for one cluster. kproxy is there too."""

    def __init__(self, cluster: ControlPlane, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(DEPLOY, folder / "deploy")
        tools = folder / "tools"
        tools.mkdir()
        for name in ("kubectl", "helm"):
            (tools / name).symlink_to(programs.find(name))
        self._environment = {
            "HOME": str(folder),
            "KUBECONFIG": str(cluster.admin_kubeconfig),
            "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def types(self, words: str, more: str = "", page: Path = PAGE) -> str:
        """Run the only command of a page that has these words, and return what it printed."""
        return self.runs(f"{command(words, page)} {more}")

    def runs(self, line: str, **environment: str) -> str:
        """Run a line of shell and return what it printed."""
        return output_of(
            *_SHELL,
            line,
            cwd=self.folder,
            environment={**self._environment, **environment},
            timeout_s=LONGEST_S,
        )

    def edits(self, file: str, old: str, new: str) -> None:
        """Replace a text that is in a file exactly once."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file}: {old}"
        path.write_text(text.replace(old, new))


def _commands(page: Path) -> Iterator[str]:
    lines = iter(page.read_text().splitlines())
    for line in lines:
        prompt = re.match(r" *\$ (.+)", line)
        if prompt is None:
            continue
        text = re.sub(r"\s+# .*$", "", prompt[1])
        while text.endswith(("\\", "|")) or text.count("'") % 2:
            text += f"\n{next(lines).strip()}"
        yield text
