"""The body of an answer, as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import urllib3
import urllib3.exceptions as http

PIECE_BYTES = 256 << 10
MAX_LINE_BYTES = 16 << 20  # etcd takes objects of 1.5 MiB; more than ten times that is no object


class Broken(Exception):
    """The connection ended before the body did."""


class Silent(Exception):
    """The server said nothing, or nothing complete, for too long."""


class TooLong(Exception):
    """More than can be meant seriously."""


def set_patience(response: urllib3.BaseHTTPResponse, idle_s: float) -> None:
    """Let the next reads wait for so long."""
    wire = getattr(response.connection, "wire", None)
    if wire is not None:  # None: all that was to come is there
        wire.settimeout(idle_s)


def whole(
    response: urllib3.BaseHTTPResponse,
    *,
    most_bytes: int,
    within_s: float,
    clock: Callable[[], float],
) -> bytes:
    """Return the complete body. Raises Broken, Silent and TooLong."""
    deadline = clock() + within_s
    pieces = []
    size_bytes = 0
    while piece := _piece(response):
        size_bytes += len(piece)
        if size_bytes > most_bytes:
            raise TooLong(f"more than {most_bytes} bytes")
        if clock() > deadline:
            raise Silent(f"has not finished its answer after {within_s:.0f} s")
        pieces.append(piece)
    return b"".join(pieces)


def lines(
    response: urllib3.BaseHTTPResponse, *, idle_s: float, clock: Callable[[], float]
) -> Iterator[list[bytes]]:
    """Yield the lines that each read completes, never an empty list, until the body ends.

    Raises Broken, also if the body ends within a line, Silent if no line is completed for
    `idle_s`, and TooLong.
    """
    tail: list[bytes] = []
    tail_bytes = 0
    heard = clock()
    while piece := _piece(response):
        end = piece.rfind(b"\n")
        if end >= 0:
            complete = [line for line in b"".join((*tail, piece[:end])).split(b"\n") if line]
            tail, tail_bytes = [piece[end + 1 :]], len(piece) - end - 1
            if complete:
                heard = clock()
                yield complete
                heard = clock()  # the reader's own time is not the server's silence
        else:
            tail.append(piece)
            tail_bytes += len(piece)
            if tail_bytes > MAX_LINE_BYTES:
                raise TooLong(f"a line of more than {MAX_LINE_BYTES >> 20} MiB")
        if clock() - heard > idle_s:
            raise Silent(f"nothing complete for {idle_s:.0f} s")
    if tail_bytes:
        raise Broken("ends in the middle of an object")


def _piece(response: urllib3.BaseHTTPResponse) -> bytes:
    try:
        return response.read1(PIECE_BYTES, decode_content=False)
    except http.ReadTimeoutError as error:
        raise Silent("does not go on with its answer") from error
    except (http.HTTPError, OSError) as error:
        raise Broken("breaks off in the middle of its answer") from error
