"""A running source whose folder vanishes, cannot be read, or cannot be watched."""

import asyncio
import logging
import shutil
import sys
import textwrap
from pathlib import Path

import pytest

from kproxy.watch.manifests import source
from kproxy.watch.manifests.folder import list_folder
from tests.support.commands import output_of
from tests.support.waiting import LONGEST_S
from tests.unit.watch.samples import following, log_lines, put, run, service


@pytest.mark.parametrize("leave", ["delete", "rename"])
def test_a_folder_that_vanishes_stays_in_force_and_is_picked_up_again(tmp_path, caplog, leave):
    caplog.set_level(logging.INFO)
    root = tmp_path / "root"
    root.mkdir()
    (root / "web.yaml").write_text(service("web", 1))

    async def story(follower):
        if leave == "delete":
            shutil.rmtree(root)
        else:
            root.rename(tmp_path / "away")
        await follower.until(lambda: log_lines(caplog, logging.ERROR))
        await asyncio.sleep(0)
        assert follower.ports() == {"web": 1}
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "web.yaml").write_text(service("web", 2))
        (tmp_path / "new").rename(root)
        await follower.until_ports(web=2)
        put(root / "web.yaml", service("web", 3))
        await follower.until_ports(web=3)

    run(root, story)
    (error,) = log_lines(caplog, logging.ERROR)
    assert error.endswith("root: No such file or directory; the last good content stays in force")
    assert log_lines(caplog)[-1].endswith("root: can be read again")


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path):
    root = tmp_path / "root"

    async def told():
        async with following(root) as follower:
            await asyncio.sleep(0.1)
            assert follower.batches == []
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "web.yaml").write_text(service("web", 2))
            (tmp_path / "new").rename(root)
            await follower.until_ports(web=2)

    asyncio.run(told())


def test_a_folder_inside_that_cannot_be_read_stays_in_force(tmp_path, caplog):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "web.yaml").write_text(service("web", 1))

    async def story(follower):
        (tmp_path / "in").rename(tmp_path / ".away")
        (tmp_path / "in").symlink_to("in")
        put(tmp_path / "b.yaml", service("b", 1))
        await follower.until_ports(web=1, b=1)
        (tmp_path / "in").unlink()
        await follower.until_ports(b=1)

    run(tmp_path, story)
    assert log_lines(caplog, logging.ERROR) == [
        "in: cannot be read: Too many levels of symbolic links"
    ]


def test_a_queue_of_events_that_runs_over_loses_nothing(tmp_path):
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    (tmp_path / "sub").mkdir()

    async def story(follower):
        # No await in between: nobody reads the queue.
        for number in range(limit // 4 + 100):
            # Create, open, write, close and delete, of a name that calls for no look by itself.
            (tmp_path / f".{number}").write_text("x")
            (tmp_path / f".{number}").unlink()
        (tmp_path / "sub" / "new").mkdir()
        (tmp_path / "sub" / "new" / "web.yaml").write_text(service("web", 1))
        await follower.until_ports(web=1)
        put(tmp_path / "sub" / "new" / "web.yaml", service("web", 2))
        await follower.until_ports(web=2)

    run(tmp_path, story)


IN_NEW_NAMESPACE = ("unshare", "--user", "--map-root-user", "--")
IN_NAMESPACE = textwrap.dedent("""
    import asyncio, logging, sys
    from pathlib import Path
    from tests.unit.watch.samples import following, service

    limit, value = sys.argv[1:3]
    root = Path(sys.argv[3])
    Path("/proc/sys/user/" + limit).write_text(value)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stdout)

    async def told():
        async with following(root) as follower:
            await follower.listed()
            (root / "e" / "web.yaml").write_text(service("web", 1))
            await follower.until_ports(web=1)

    asyncio.run(told())
""")


@pytest.mark.parametrize(
    ("limit", "value", "sysctl"),
    [
        ("max_inotify_watches", "3", "fs.inotify.max_user_watches"),
        ("max_inotify_instances", "0", "fs.inotify.max_user_instances"),
    ],
)
def test_without_inotify_the_clock_does(tmp_path, limit, value, sysctl):
    for name in "abcde":
        (tmp_path / name).mkdir()
    program = (sys.executable, "-c", IN_NAMESPACE, limit, value, tmp_path)
    said = output_of(*IN_NEW_NAMESPACE, *program, timeout_s=LONGEST_S)
    warnings = [line for line in said.splitlines() if "through inotify" in line]
    assert len(warnings) == 1
    assert sysctl in warnings[0]


UNMOUNTED = textwrap.dedent("""
    import asyncio, logging, subprocess, sys
    from pathlib import Path
    from tests.unit.watch.samples import following, service

    root = Path(sys.argv[1])
    logging.basicConfig(format="%(message)s", level=logging.ERROR, stream=sys.stdout)

    def mount():
        subprocess.run(["mount", "-t", "tmpfs", "none", str(root)], check=True)

    async def told():
        mount()
        (root / "web.yaml").write_text(service("web", 1))
        async with following(root) as follower:
            await follower.until_ports(web=1)
            subprocess.run(["umount", str(root)], check=True)
            await asyncio.sleep(0.3)
            assert follower.ports() == {"web": 1}
            mount()
            (root / "web.yaml").write_text(service("web", 2))
            await follower.until_ports(web=2)

    asyncio.run(told())
""")


def test_a_folder_that_is_unmounted_stays_in_force(tmp_path):
    program = (sys.executable, "-c", UNMOUNTED, tmp_path)
    said = output_of(*IN_NEW_NAMESPACE[:-1], "--mount", "--", *program, timeout_s=LONGEST_S)
    (error,) = said.splitlines()
    assert "unmounted?" in error


def test_a_folder_made_anew_under_its_old_number_is_watched_again(tmp_path):
    (tmp_path / "in").mkdir()

    async def story(follower):
        for number in range(1, 4):
            (tmp_path / "in").rmdir()
            (tmp_path / "in").mkdir()  # most file systems give the inode number out again
            await asyncio.sleep(0.2)
            put(tmp_path / "in" / "web.yaml", service("web", number))
            await follower.until_ports(web=number)
            (tmp_path / "in" / "web.yaml").unlink()
            await follower.until_ports()

    run(tmp_path, story)


def test_what_happens_between_listing_and_watching_is_noticed(tmp_path, monkeypatch):
    def listed_and_then_written(root):
        listing = list_folder(root)
        if not (tmp_path / "web.yaml").exists():
            put(tmp_path / "web.yaml", service("web", 1))
        return listing

    monkeypatch.setattr(source, "list_folder", listed_and_then_written)

    async def story(follower):
        await follower.until_ports(web=1)

    run(tmp_path, story)
