"""Lists of targets: one array for both lists of a service port, addressed by its content. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from backends.ebpf.render.layout import (
    NO_DIGEST,
    TARGETS_PER_CHUNK,
    Layout,
    TableMap,
    packed,
    port_bytes,
)
from kproxy.core.image import Key
from kproxy.core.table import Target


class Part(NamedTuple):
    """Neighbours in an array."""

    first: int
    size: int


class Arranged(NamedTuple):
    """The targets of a service port in one array; `everywhere` and `local` are its two lists."""

    digest: bytes
    content: bytes
    everywhere: Part
    local: Part


def arrange(layout: Layout, targets: Sequence[Target], local: Sequence[Target]) -> Arranged:
    """Put two lists into one array: local ones alone, those of both lists, the others."""
    here, known = set(local), set(targets) if local else ()
    alone = [target for target in local if target not in known]
    both = [target for target in targets if target in here] if here else []
    others = [target for target in targets if target not in here] if here else targets
    pack = layout.target.pack
    content = b"".join(
        [
            pack(packed(target.address), port_bytes(target.port), target.local)
            for target in (*alone, *both, *others)
        ]
    )
    digest = hashlib.blake2b(content, digest_size=8).digest() if content else NO_DIGEST
    return Arranged(
        digest=digest,
        content=content,
        everywhere=Part(len(alone), len(targets)),
        local=Part(0, len(local)),
    )


def chunks(layout: Layout, arranged: Arranged) -> Iterator[tuple[Key, bytes]]:
    """Yield the entries of an array."""
    content, size = arranged.content, layout.chunk_size
    for number, begin in enumerate(range(0, len(content), size)):
        chunk = content[begin : begin + size].ljust(size, b"\0")
        yield layout.chunk(arranged.digest, number), chunk


def members(layout: Layout, arranged: Arranged) -> Iterator[tuple[Key, bytes]]:
    """Yield the entries that say where each target is in an array."""
    for position, (address, port, _) in enumerate(layout.target.iter_unpack(arranged.content)):
        key = layout.member_key.pack(arranged.digest, address, port)
        yield TableMap.MEMBERS.prefix + key, layout.member.pack(position)


def chunk_keys(layout: Layout, digest: bytes, length: int) -> Iterator[Key]:
    """Yield the image keys of an array of so many targets."""
    for number in range(chunk_count(length)):
        yield layout.chunk(digest, number)


def chunk_count(length: int) -> int:
    """Return how many chunks an array of so many targets has."""
    return -(-length // TARGETS_PER_CHUNK)
