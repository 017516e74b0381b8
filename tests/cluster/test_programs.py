"""Where the programs come from; a script stands in for Go."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import programs
from tests.support.fetched import Unavailable

_ROOT = Path(__file__).parents[2]
_GO = """#!/bin/sh
case $1 in
env) echo go1.99.0 ;;
build)
    echo "$@" >>$CALLS
    while [ "$1" != -o ]; do shift; done
    sleep 0.1
    [ -e $CALLS.fails ] && echo garbage >"$2" && exit 1
    echo "$3" >"$2" ;;
esac
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A cache folder with nothing in it, and the file in which Go writes down what it builds."""
    calls = tmp_path / "calls"
    calls.touch()
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(_GO)
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return calls


def built(calls):
    return [line.split()[-1] for line in calls.read_text().splitlines()]


def test_what_was_built_is_found_and_not_built_again(calls):
    with pytest.raises(Unavailable, match="run `make programs`"):
        programs.find("etcd")
    programs.build()
    programs.build()

    assert programs.find("etcd").read_text() == "go.etcd.io/etcd/server/v3\n"
    assert built(calls) == list(programs.PACKAGES.values())


def test_the_assets_of_envtest_are_taken_and_only_the_rest_is_built(calls, tmp_path, monkeypatch):
    etcd = tmp_path / "assets" / "etcd"
    etcd.parent.mkdir()
    etcd.touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(etcd.parent))
    programs.build()

    assert programs.find("etcd") == etcd
    assert programs.PACKAGES["etcd"] not in built(calls)
    assert programs.PACKAGES["kube-proxy"] in built(calls)


def test_two_at_once_build_each_program_once(calls):
    command = [sys.executable, "-m", "tests.support.cluster.programs"]
    both = [subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL) for _ in range(2)]

    assert [each.wait(60) for each in both] == [0, 0]
    assert sorted(built(calls)) == sorted(programs.PACKAGES.values())


def test_a_build_that_fails_leaves_nothing_that_could_be_taken_for_a_program(calls):
    Path(f"{calls}.fails").touch()
    with pytest.raises(Unavailable, match="kube-apiserver cannot be built"):
        programs.build()
    with pytest.raises(Unavailable, match="kube-apiserver is not built yet"):
        programs.find("kube-apiserver")


def test_another_version_of_the_modules_is_another_program(calls, tmp_path, monkeypatch):
    programs.build()
    for name in ("go.mod", "go.sum"):
        text = (_ROOT / "tests/support/cluster/programs" / name).read_text()
        (tmp_path / name).write_text(text.replace("etcd/server/v3 v3.7.0", "etcd/server/v3 v3.7.1"))
    monkeypatch.setattr(programs, "MODULE", tmp_path)

    with pytest.raises(Unavailable):
        programs.find("etcd")
