"""Which files of a folder are read, and what makes one unreadable."""

import gc
import os
import socket
import time

import pytest

from kproxy.core.objects import Service
from kproxy.watch.manifests.folder import (
    MAX_SIZE_BYTES,
    CannotRead,
    is_manifest,
    list_folder,
    read_text,
)
from kproxy.watch.manifests.source import FolderLost, ManifestFiles, load, missing_node
from tests.unit.watch.samples import service, services


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "a.json", "a.b.yaml"])
def test_manifests_are_known_by_their_suffix(name):
    assert is_manifest(name)


@pytest.mark.parametrize(
    "name",
    [".a.yaml", "..2024.yaml", "a.yaml~", "#a.yaml#", ".a.yaml.swp", "4913", "a.txt", "yaml"],
)
def test_copies_and_hidden_files_are_no_manifests(name):
    assert not is_manifest(name)


def test_nested_folders_are_read_and_hidden_ones_are_not(tmp_path):
    for place in ("a/b/c", ".git", "..2024"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "x.yaml").write_text("")
    (tmp_path / "dir.yaml").mkdir()
    (tmp_path / "dir.yaml" / "y.yml").write_text("")
    assert sorted(list_folder(tmp_path).files) == ["a/b/c/x.yaml", "dir.yaml/y.yml"]


def test_links_are_followed_and_loops_end(tmp_path):
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    outside.mkdir()
    (outside / "o.yaml").write_text("")
    (root / "a" / "x.yaml").write_text("")
    (root / "a" / "up").symlink_to(root)
    (root / "again").symlink_to(root / "a")
    (root / "out").symlink_to(outside)
    (root / "self").symlink_to("self")
    (root / "first.yaml").symlink_to("a/x.yaml")
    listing = list_folder(root)
    assert sorted(listing.files) == ["a/x.yaml", "first.yaml", "out/o.yaml"]
    assert listing.hidden == {"self": "Too many levels of symbolic links"}


def test_what_is_no_file_is_an_error_and_nothing_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    (tmp_path / "lost.yaml").symlink_to("nowhere.yaml")
    (tmp_path / "round.yaml").symlink_to("round.yaml")
    with (tmp_path / "huge.yaml").open("wb") as huge:
        huge.truncate(MAX_SIZE_BYTES + 1)
    (tmp_path / "web.yaml").write_text(service("web"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.yaml"))
        loaded = load(tmp_path)
    assert services(loaded.objects) == {"web": 80}
    assert [problem.text() for problem in loaded.problems] == [
        "device.yaml: is a device, not a file",
        "fifo.yaml: is a FIFO, not a file",
        "huge.yaml: is larger than 64 MiB",
        "lost.yaml: a link to nothing",
        "round.yaml: Too many levels of symbolic links",
        "s.yaml: is a socket, not a file",
    ]


def test_reading_a_fifo_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "f.yaml")
    with pytest.raises(CannotRead, match="FIFO"):
        read_text(tmp_path / "f.yaml")


def test_a_text_read_right_after_a_write_may_be_stale(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("")
    assert read_text(path).racy
    then = time.time() - 60
    os.utime(path, (then, then))
    assert read_text(path).racy, "the change of the times is itself a change"


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FolderLost, match="nowhere: No such file or directory"):
        load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderLost, match="Not a directory"):
        load(tmp_path / "file")


def test_loading_tells_objects_and_problems_of_all_files(tmp_path):
    (tmp_path / "a.yaml").write_text(service("x", 1) + service("bad", 0))
    (tmp_path / "b.yaml").write_text(service("x", 2))
    (tmp_path / "c.json").write_text("{")
    (tmp_path / "d.yaml").write_text("apiVersion: v1\nkind: Endpoints\nmetadata: {name: e}\n")
    loaded = load(tmp_path)
    assert services(loaded.objects) == {"x": 1}
    starts = [
        "a.yaml:13: Service ",
        "c.json:1: ",
        "d.yaml:1: Endpoints ",
        "b.yaml: Service default/x",
    ]
    texts = [problem.text() for problem in loaded.problems]
    assert len(texts) == len(starts)
    assert all(text.startswith(start) for text, start in zip(texts, starts, strict=True)), texts
    assert [len(replaced.objects) for replaced in loaded.changes()] == [1, 0, 0, 0]


def test_a_missing_node_is_allowed_and_its_effects_are_told(tmp_path):
    (tmp_path / "n.yaml").write_text("apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n")
    objects = load(tmp_path).objects
    assert missing_node("n1", objects) is None
    text = missing_node("n2", objects)
    assert text is not None
    assert all(word in text for word in ("n2", "zone", "primary", "NodeCIDR"))


def test_a_write_too_soon_to_show_in_the_times_is_noticed(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(service("web", 1))
    files = ManifestFiles(tmp_path)
    listing = list_folder(tmp_path)
    files.refresh(listing)
    path.write_text(service("web", 2))
    changes = files.refresh(listing).changes  # the same times and size again
    assert services(change.object for change in changes) == {"web": 2}


def test_a_problem_that_stays_is_not_reported_again(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(service("web", 0) + service("other", 1))
    files = ManifestFiles(tmp_path)
    assert len(files.refresh(list_folder(tmp_path)).remarks) == 1
    path.write_text(service("web", 0) + service("other", 2))
    report = files.refresh(list_folder(tmp_path))
    assert services(change.object for change in report.changes) == {"other": 2}
    assert report.remarks == ()
    assert len(files.problems()) == 1


def test_what_did_not_change_in_a_changed_file_is_held_once(tmp_path):
    files = ManifestFiles(tmp_path)
    for port in (1, 22):
        (tmp_path / "a.yaml").write_text(service("stays") + service("moves", port))
        files.refresh(list_folder(tmp_path))
    in_force = {each.key.name: each for listed in files.everything() for each in listed.objects}
    gc.collect()
    alive = [each for each in gc.get_objects() if isinstance(each, Service)]
    assert alive.count(in_force["stays"]) == 1
    assert alive.count(in_force["moves"]) == 1
