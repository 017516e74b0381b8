"""Functions of the kernel are found in its type information, and in that of its modules."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from backends.kernel.bpf import btf, kfuncs, programs
from backends.kernel.bpf.kfuncs import Kfunc
from backends.kernel.bpf.programs import Code, ProgramType
from backends.kernel.bpf.syscall import Descriptor, KernelRefusal

INT, STRUCT, ENUM, FUNCTION, PROTOTYPE, DATA, TAG, ENUM64 = 1, 4, 6, 12, 13, 15, 17, 19
CALL = struct.pack("=BBhi", 0x85, 0, 0, 0x6B660001)
NOTHING = struct.pack("=BBhi", 0xB7, 0, 0, 0)


def types(names: list[str], *listed: tuple[int, int, str, int], base: int = 0) -> bytes:
    """Return type information: of each type kind, number of members, name and words that follow."""
    text, at = b"\0", {"": 0}
    for name in names:
        at[name] = base + len(text)
        text += name.encode() + b"\0"
    body = b"".join(
        struct.pack("=III", at[name], kind << 24 | members, 0) + bytes(4 * words)
        for kind, members, name, words in listed
    )
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(text)) + (
        body + text
    )


KERNEL = types(
    ["of_kernel", "both"],
    (INT, 0, "", 1),
    (STRUCT, 2, "", 6),
    (ENUM, 3, "", 6),
    (PROTOTYPE, 2, "", 4),
    (DATA, 1, "both", 3),
    (FUNCTION, 1, "of_kernel", 0),
    (TAG, 0, "", 1),
    (ENUM64, 2, "", 6),
)
MODULE = types(
    ["of_module", "both"],
    (PROTOTYPE, 1, "", 2),
    (FUNCTION, 1, "of_module", 0),
    base=len(b"\0of_kernel\0both\0"),
)


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    (tmp_path / "vmlinux").write_bytes(KERNEL)
    (tmp_path / "tracking").write_bytes(MODULE)
    monkeypatch.setattr(kfuncs, "_TYPES", tmp_path)
    monkeypatch.setattr(btf, "of_module", lambda _: Descriptor(os.open(tmp_path, os.O_RDONLY)))


def test_functions_are_offered_by_the_kernel_or_by_a_module(kernel):
    asked = ["of_kernel", "of_module", "of_nobody"]
    assert kfuncs.offered(asked) == {"of_kernel": "vmlinux", "of_module": "tracking"}


def test_a_function_is_known_by_the_number_of_its_type(kernel):
    with kfuncs.opened(["of_kernel", "of_module", "of_nobody"]) as found:
        assert {name: each.type for name, each in found.items()} == {
            "of_kernel": 6,
            "of_module": 8 + 2,
        }
        assert found["of_kernel"].module is None
        assert found["of_module"].module is not None


def test_a_type_that_is_no_function_is_none(kernel):
    with kfuncs.opened(["both"]) as found:
        assert found == {}


def test_a_module_that_may_not_be_looked_into_costs_its_functions_alone(
    kernel, monkeypatch, caplog
):
    def refuse(name):
        raise KernelRefusal(f"opening {name}", errno.EPERM)

    monkeypatch.setattr(btf, "of_module", refuse)
    with kfuncs.opened(["of_kernel", "of_module"]) as found:
        assert found == {"of_kernel": Kfunc(6, None)}
    assert "functions of the module tracking are not called: opening tracking: EPERM" in caplog.text


def test_a_kernel_without_type_information_offers_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(kfuncs, "_TYPES", tmp_path)
    with kfuncs.opened(["of_kernel"]) as found:
        assert found == {}


def test_calls_are_of_the_kernel_of_modules_by_their_place_or_of_nothing():
    names = dict(enumerate(("own", "first", "missing", "second", "first_too")))
    code = Code("calling", ProgramType.TC, 0, CALL * len(names), {}, names)
    one, two = Descriptor(-1), Descriptor(-1)
    found = {
        "own": Kfunc(7, None),
        "first": Kfunc(8, one),
        "second": Kfunc(9, two),
        "first_too": Kfunc(10, one),
    }

    calls = programs.with_kfuncs(code, code.instructions, found)

    def call(place: int, type_: int) -> bytes:
        return struct.pack("=BBhi", 0x85, 2 << 4, place, type_)

    assert calls == call(0, 7) + call(1, 8) + NOTHING + call(2, 9) + call(1, 10)
