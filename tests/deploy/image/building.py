"""The image, built as a user builds it, on a base that is made of Debian's packages here.

No registry is asked: the base is put into a storage of our own, under the name that the Dockerfile
starts from. The storage stays in a cache folder, so the builder decides what is to be done again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kproxy import __version__
from tests.support.commands import output_of

ROOT = Path(__file__).parents[3]
TAG = f"localhost/kproxy:{__version__}"

_LONGEST_S = 900
# What Debian's own image leaves out of its packages (debuerreotype, variant "slim").
_LEFT_OUT = ("doc", "groff", "info", "linda", "lintian", "locale", "man")
_DEBIAN = (
    "mmdebstrap",
    "--quiet",
    "--variant=minbase",
    "--include=usr-is-merged",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    *(f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in _LEFT_OUT),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "bookworm",  # with its updates and security updates, from where mmdebstrap finds them
)
_IMPORT = """
container=$(buildah from scratch)
buildah add --quiet "$container" "$1" /
buildah commit --quiet "$container" "$2"
buildah rm "$container"
"""
_LAYERS = """
container=$(buildah from --pull-never "$1")
findmnt --noheadings --output OPTIONS "$(buildah mount "$container")"
buildah rm "$container" >/dev/null
"""
# Every change of our source adds three small images to what the builder remembers.
_MOST_IMAGES = 150


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: its layers' folders, the topmost first, and its configuration.

    The configuration is that of the OCI image specification.
    """

    layers: tuple[Path, ...]
    config: dict[str, Any]


def build() -> Image:
    """Return the image of this source tree. Two processes at once take turns."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(caches, "kproxy", "image")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock, tempfile.TemporaryDirectory() as run_folder:
        fcntl.flock(lock, fcntl.LOCK_EX)
        base = _base(cache)
        storage = cache / base.stem.replace("base", "storage")
        if len(list(storage.glob("overlay-images/*"))) > _MOST_IMAGES:
            shutil.rmtree(storage)
        builder = _Builder(storage, Path(run_folder))
        if not builder.has(_base_name()):
            builder.shell(_IMPORT, base, _base_name())
        builder.run(ROOT / "deploy/image/build")
        inspected = json.loads(builder.run("buildah", "inspect", "--type", "image", TAG))
        mounted = re.search(r"lowerdir=([^,]+)", builder.shell(_LAYERS, TAG))
    assert mounted is not None
    return Image(tuple(map(Path, mounted[1].split(":"))), inspected["OCIv1"]["config"])


class _Builder:
    """Buildah on a storage of its own. Its mounts end with each call."""

    def __init__(self, storage: Path, run_folder: Path) -> None:
        settings = run_folder / "storage.conf"
        settings.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{storage}"\nrunroot = "{run_folder}"\n'
        )
        self._environment = {
            **os.environ,
            "BUILDER": "buildah",
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_STORAGE_CONF": str(settings),
        }

    def run(self, *command: object) -> str:
        """Run a command that uses buildah, and return what it said."""
        return output_of(
            "unshare", "--mount", *command, environment=self._environment, timeout_s=_LONGEST_S
        )

    def shell(self, script: str, *arguments: object) -> str:
        """Run a shell script that uses buildah; it ends where a command fails."""
        return self.run("sh", "-euc", script, "sh", *arguments)

    def has(self, name: str) -> bool:
        """Say whether an image is in the storage."""
        return f'"docker.io/library/{name}"' in self.run("buildah", "images", "--json")


def _base(cache: Path) -> Path:
    """Return an archive of a small Debian system."""
    digest = hashlib.sha256(repr(_DEBIAN).encode()).hexdigest()[:16]
    archive = cache / f"base-{digest}.tar"
    if not archive.is_file():
        with _appearing(archive) as new:
            output_of(*_DEBIAN, new, timeout_s=_LONGEST_S)
    return archive


def _base_name() -> str:
    """Return the name of the image that the Dockerfile starts from."""
    dockerfile = (ROOT / "deploy/image/Dockerfile").read_text()
    found = re.search(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    assert found is not None, "the Dockerfile names no base"
    return found[1]


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """Give a name to make something under, which then appears at `path` as a whole."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        new = Path(folder, path.name)
        yield new
        new.rename(path)
