"""A running source on a real folder with real inotify."""

import asyncio
import json
import logging
import os
import shutil

import yaml

from kproxy.core.objects import Kind
from kproxy.core.store import Deleted, Replaced, Upserted
from kproxy.ports.source import SourceState
from kproxy.watch.manifests.source import ManifestSource, load, missing_node
from tests.support.open_files import open_files, opened_since
from tests.support.waiting import LONGEST_S
from tests.unit.watch.samples import log_lines, put, run, service


def test_the_first_batch_lists_every_kind_and_the_next_only_what_changed(tmp_path):
    (tmp_path / "a.yaml").write_text(service("x", 1) + service("y", 2))

    async def story(follower):
        assert [type(change) for change in follower.batches[0]] == [Replaced] * 4
        assert [change.kind for change in follower.batches[0]] == list(Kind)
        put(tmp_path / "a.yaml", service("x", 1) + service("y", 3))
        await follower.until_ports(x=1, y=3)
        assert [type(change) for change in follower.batches[1]] == [Upserted]
        put(tmp_path / "a.yaml", service("x", 1))
        await follower.until_ports(x=1)
        assert [type(change) for change in follower.batches[2]] == [Deleted]

    run(tmp_path, story)


def test_every_way_to_change_a_file_is_noticed(tmp_path):
    web = tmp_path / "web.yaml"

    async def story(follower):
        web.write_text(service("web", 1))
        await follower.until_ports(web=1)
        put(web, service("web", 2))
        await follower.until_ports(web=2)
        web.write_text(service("web", 3))
        await follower.until_ports(web=3)
        web.rename(tmp_path / "web.yaml~")  # vim: the old one is moved, a new one is written
        web.write_text(service("web", 4))
        await follower.until_ports(web=4)
        with web.open("r+") as handle:
            handle.write(service("web", 5))
        await follower.until_ports(web=5)
        web.rename(tmp_path / "web.yml")
        renamed = tmp_path / "web.yml"
        listed = {
            "apiVersion": "v1",
            "kind": "List",
            "items": [yaml.safe_load(service("more", 1)[:-4])],
        }
        (tmp_path / "more.json").write_text(json.dumps(listed))
        await follower.until_ports(web=5, more=1)
        with renamed.open("a") as handle:
            handle.write(service("end", 6))
        await follower.until_ports(web=5, more=1, end=6)
        renamed.unlink()
        await follower.until_ports(more=1)
        os.truncate(tmp_path / "more.json", 0)
        await follower.until_ports()

    run(tmp_path, story)


def test_a_file_is_not_read_while_it_is_being_written(tmp_path, caplog, monkeypatch):
    for name in ("WRITING_S", "WRITING_LIMIT_S"):  # whoever writes may be kept waiting
        monkeypatch.setattr(f"kproxy.watch.manifests.notice.{name}", LONGEST_S)
    web = tmp_path / "web.yaml"
    web.write_text(service("web", 1))
    text = service("web", 2) + service("late", 3)

    async def story(follower):
        with web.open("w") as handle:
            for part in range(0, len(text), 30):
                handle.write(text[part : part + 30])
                handle.flush()
                await asyncio.sleep(0.1)
                assert follower.ports() == {"web": 1}
        await follower.until_ports(web=2, late=3)

    run(tmp_path, story)
    assert len(log_lines(caplog, logging.ERROR)) == 0


def test_a_writer_that_never_closes_is_waited_for_a_while_only(tmp_path):
    async def story(follower):
        with (tmp_path / "web.yaml").open("w") as handle:
            handle.write(service("web", 1))
            handle.flush()
            await follower.until_ports(web=1)

    run(tmp_path, story)


def test_folders_come_go_and_move(tmp_path):
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    (outside / "deep" / "er").mkdir(parents=True)
    (outside / "deep" / "er" / "x.yaml").write_text(service("x", 1))
    root.mkdir()

    async def story(follower):
        (outside / "deep").rename(root / "in")
        await follower.until_ports(x=1)
        put(root / "in" / "er" / "x.yaml", service("x", 2))
        await follower.until_ports(x=2)
        (root / "in").rename(root / "moved")
        (root / "moved" / "er" / "y.yaml").write_text(service("y", 1))
        await follower.until_ports(x=2, y=1)
        put(root / "moved" / "er" / "y.yaml", service("y", 2))
        await follower.until_ports(x=2, y=2)
        shutil.rmtree(root / "moved" / "er")
        await follower.until_ports()
        (root / "moved" / "er").mkdir()  # may get the same inode number
        (root / "moved" / "er" / "y.yaml").write_text(service("y", 3))
        await follower.until_ports(y=3)
        put(root / "moved" / "er" / "y.yaml", service("y", 4))
        await follower.until_ports(y=4)

    run(root, story)


def write_volume(root, name, text):
    """Do what kubelet does to a ConfigMap volume."""
    (root / name).mkdir()
    (root / name / "web.yaml").write_text(text)
    (root / "..tmp").symlink_to(name)
    (root / "..tmp").rename(root / "..data")


def test_a_config_map_volume_is_read_once_and_its_swap_is_noticed(tmp_path, caplog):
    write_volume(tmp_path, "..1", service("web", 1))
    (tmp_path / "web.yaml").symlink_to("..data/web.yaml")

    async def story(follower):
        assert follower.ports() == {"web": 1}
        write_volume(tmp_path, "..2", service("web", 2))
        shutil.rmtree(tmp_path / "..1")
        await follower.until_ports(web=2)
        (tmp_path / "..2" / "web.yaml").write_text(service("web", 3))
        await follower.until_ports(web=3)

    run(tmp_path, story)
    assert log_lines(caplog, logging.ERROR) == []


def test_a_file_that_turns_invalid_stays_in_force_and_is_reported_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    web = tmp_path / "web.yaml"
    web.write_text(service("web", 1) + service("other", 1))

    async def story(follower):
        put(web, service("web", 99999) + service("other", 2))
        await follower.until_ports(web=1, other=2)
        os.utime(web)
        put(web, service("web", 99999) + service("other", 2))
        put(tmp_path / "third.yaml", service("third", 3))
        await follower.until_ports(web=1, other=2, third=3)
        put(web, "a: [")
        put(tmp_path / "third.yaml", service("third", 4))
        await follower.until_ports(web=1, other=2, third=4)
        put(web, service("web", 5))
        await follower.until_ports(web=5, third=4)

    run(tmp_path, story)
    wrong, syntax = log_lines(caplog, logging.ERROR)
    assert wrong.startswith("web.yaml:6: Service ")
    assert "spec.ports[0].port" in wrong
    assert syntax.startswith("web.yaml:2: ")
    assert log_lines(caplog)[-1] == "web.yaml: is valid again"


def test_the_status_tells_a_refused_object_and_a_lost_folder(tmp_path):
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "web.yaml").write_text(service("web", 1))

    async def story(follower):
        def told(kind=Kind.SERVICE):
            return next(each for each in follower.source.status() if each.kind is kind)

        assert told().state is SourceState.FOLLOWING
        assert told().refused == 0
        assert told().lists == 1
        put(folder / "bad.yaml", service("bad", 99999))
        await follower.until(lambda: told().refused == 1)
        assert told(Kind.ENDPOINT_SLICE).refused == 0
        since = told().since
        shutil.move(folder, tmp_path / "gone")
        await follower.until(lambda: told().state is SourceState.FAILING)
        assert told().detail
        assert told().since >= since
        shutil.move(tmp_path / "gone", folder)
        await follower.until(lambda: told().state is SourceState.FOLLOWING)
        assert told().detail == ""

    run(folder, story)


def test_before_the_first_look_the_status_says_so(tmp_path):
    source = ManifestSource(tmp_path, node_name="n", log=logging.getLogger("test"))
    assert {each.state for each in source.status()} == {SourceState.STARTING}
    assert [each.kind for each in source.status()] == list(Kind)


def test_an_unreadable_file_stays_in_force(tmp_path, caplog):
    web = tmp_path / "web.yaml"
    web.write_text(service("web", 1))

    async def story(follower):
        web.unlink()
        os.mkfifo(web)
        put(tmp_path / "b.yaml", service("b", 1))
        await follower.until_ports(web=1, b=1)
        web.unlink()
        await follower.until_ports(b=1)

    run(tmp_path, story)
    assert log_lines(caplog, logging.ERROR) == ["web.yaml: is a FIFO, not a file"]


def test_a_linked_folder_that_is_switched_over_is_noticed_at_once(tmp_path):
    for version in (1, 2):
        (tmp_path / f"v{version}").mkdir()
        (tmp_path / f"v{version}" / "web.yaml").write_text(service("web", version))
    (tmp_path / "current").symlink_to("v1")

    async def story(follower):
        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").rename(tmp_path / "current")
        await follower.until_ports(web=2)
        put(tmp_path / "v2" / "web.yaml", service("web", 3))
        await follower.until_ports(web=3)

    run(tmp_path / "current", story)


def test_two_files_with_one_object_are_an_error_naming_both(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "b.yaml").write_text(service("web", 2))

    async def story(follower):
        put(tmp_path / "a.yaml", service("web", 1))
        await follower.until_ports(web=1)
        (tmp_path / "a.yaml").unlink()
        await follower.until_ports(web=2)

    run(tmp_path, story)
    (error,) = log_lines(caplog, logging.ERROR)
    assert error == "b.yaml: Service default/web: is also in a.yaml, which counts"
    assert log_lines(caplog)[-1] == "Service default/web: is in b.yaml alone again"


def test_a_missing_node_and_unused_endpoints_are_said_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    endpoints = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: e}\n"
    (tmp_path / "e.yaml").write_text(endpoints)

    async def story(follower):
        put(tmp_path / "f.yaml", endpoints + "---\n" + service("f", 1))
        await follower.until_ports(f=1)
        put(tmp_path / "n.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n")
        await follower.until(lambda: follower.store.all(Kind.NODE))

    run(tmp_path, story)
    warnings = log_lines(caplog, logging.WARNING)
    assert len([text for text in warnings if "no Node object named n1" in text]) == 1
    assert len([text for text in warnings if "Endpoints" in text]) == 1
    assert log_lines(caplog)[-1] == "the Node object n1 is there now"


def test_who_mistook_the_name_of_the_node_is_told_which_there_are(tmp_path, caplog):
    other = "apiVersion: v1\nkind: Node\nmetadata: {name: n1.example.org}\n"
    (tmp_path / "n.yaml").write_text(other)

    async def story(follower):
        assert follower.store.all(Kind.NODE)

    run(tmp_path, story)
    (warning,) = log_lines(caplog, logging.WARNING)
    said = "no Node object named n1 among the manifests (there is n1.example.org): "
    assert warning.startswith(said)
    assert missing_node("n1", load(tmp_path).objects) == warning
    assert missing_node("n1.example.org", load(tmp_path).objects) is None


def test_constant_writes_elsewhere_do_not_delay_a_change_for_long(tmp_path, monkeypatch):
    # However long a busy machine keeps the writer waiting, the folder never becomes quiet.
    monkeypatch.setattr("kproxy.watch.manifests.notice.QUIET_S", LONGEST_S)

    async def story(follower):
        async def noise():
            while True:
                put(tmp_path / "noise.yaml", service("noise", 1))
                await asyncio.sleep(0.01)

        task = asyncio.create_task(noise())
        try:
            await asyncio.sleep(0.1)
            put(tmp_path / "web.yaml", service("web", 1))
            await follower.until_ports(web=1, noise=1)
        finally:
            task.cancel()

    run(tmp_path, story)


def test_stopping_leaves_no_descriptor_behind(tmp_path):
    (tmp_path / "a.yaml").write_text(service("a"))

    async def nothing(follower):
        pass

    run(tmp_path, nothing)
    before = open_files()
    for _ in range(3):
        run(tmp_path, nothing)
    assert not opened_since(before)
