"""The HTTP server as honest clients see it: exact bytes, and connections that live on."""

import asyncio
import logging

import pytest

from kproxy.run.http.message import Request, Response
from tests.support.open_files import open_files
from tests.unit.run.http.scene import DATE, asynchronous, connected, get, ok, once, serving, until

SHORT = (
    b"HTTP/1.1 %b\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
)


def refusal(status):
    """Return the bytes of an answer that ends the connection."""
    rest = b"Date: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
    return SHORT % status + rest % (DATE, len(status), status)


@asynchronous
async def test_an_answer_is_exactly_this():
    async with serving() as address, connected(address) as client:
        await client.send(get("/a%20b?c=d"))
        assert await client.read(len(ok(b"GET /a b"))) == ok(b"GET /a b")


@pytest.mark.parametrize("target", ["http://a/there", "http://a/there?x", "/there", "/there?"])
@asynchronous
async def test_the_path_is_found_in_every_form_of_target(target):
    async with serving() as address, connected(address) as client:
        assert await client.ask(target) == (200, b"GET /there")


@pytest.mark.parametrize(
    ("target", "path"),
    [("http://node", "/"), ("http://[x/there", "http://[x/there"), ("*", "*"), ("x", "x")],
)
@asynchronous
async def test_odd_targets_are_answered_too(target, path):
    async with serving() as address, connected(address) as client:
        assert await client.ask(target) == (200, f"GET {path}".encode())
        assert (await client.ask("/"))[0] == 200


@asynchronous
async def test_a_page_learns_what_was_asked():
    seen = []

    def noting(request):
        seen.append(request)
        return Response(200, (), b"")

    async with serving(noting) as address:
        await once(address, get("/%C3%A9?a=b", "Accept: text/plain, */*", method="PUT"))
        await once(address, get("/"))
    assert seen == [Request("PUT", "/é", "a=b", "text/plain, */*"), Request("GET", "/")]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
@asynchronous
async def test_any_method_will_do(method):
    async with serving() as address, connected(address) as client:
        assert await client.ask("/x", method=method) == (200, f"{method} /x".encode())


@asynchronous
async def test_head_has_the_headers_of_get_and_no_body():
    async with serving() as address:
        got = await once(address, get("/", method="HEAD"))
    assert got == ok(b"HEAD /").removesuffix(b"HEAD /")


@asynchronous
async def test_a_connection_serves_many_requests():
    async with serving() as address, connected(address) as client:
        for number in range(20):
            assert await client.ask(f"/{number}") == (200, f"GET /{number}".encode())


@asynchronous
async def test_the_client_may_ask_to_close():
    async with serving() as address, connected(address) as client:
        await client.send(get("/", "Connection: close"))
        assert await client.rest() == ok(b"GET /", close=True)


@asynchronous
async def test_nothing_is_answered_after_the_last_answer():
    async with serving() as address, connected(address) as client:
        await client.send(get("/1", "Connection: close") + get("/2"))
        await client.send(get("/3"))
        assert await client.rest() == ok(b"GET /1", close=True)


@asynchronous
async def test_the_last_of_many_answers_arrives_although_more_was_sent():
    async with serving() as address, connected(address) as client:
        open_before = len(open_files())
        await client.send(get("/1") + get("/2", "Connection: close") + bytes(4 << 20))
        assert await client.rest() == ok(b"GET /1") + ok(b"GET /2", close=True)
        client.half_close()
        await until(lambda: len(open_files()) < open_before)


@asynchronous
async def test_http_1_0_is_answered_and_closed():
    async with serving() as address, connected(address) as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert await client.rest() == ok(b"GET /", close=True)


@asynchronous
async def test_an_upgrade_is_answered_as_if_it_had_not_been_asked_for():
    async with serving() as address, connected(address) as client:
        await client.send(get("/", "Connection: upgrade", "Upgrade: h2c"))
        assert (await client.answer())[1] == b"GET /"
        assert (await client.ask("/"))[0] == 200


@asynchronous
async def test_pipelined_requests_are_answered_in_order():
    async with serving() as address, connected(address) as client:
        await client.send(b"".join(get(f"/{n}") for n in range(300)))
        assert [(await client.answer())[1] for _ in range(300)] == [
            f"GET /{n}".encode() for n in range(300)
        ]


@asynchronous
async def test_a_long_pipeline_does_not_hold_up_others():
    seen = []

    def noting(request):
        seen.append(request.path)
        return Response(200, (), b"")

    async with serving(noting) as address, connected(address) as greedy, connected(address) as one:
        await greedy.send(get("/greedy") * 2000)
        await one.ask("/one")
        turn = seen.index("/one")
        for _ in range(2000):
            await greedy.answer()
    assert turn < 1000
    assert len(seen) == 2001


@asynchronous
async def test_half_closed_clients_get_their_answers():
    async with serving() as address:
        got = await once(address, get("/1") + get("/2"))
    assert got == ok(b"GET /1") + ok(b"GET /2")


@asynchronous
async def test_requests_need_not_end_where_packets_end():
    async with serving() as address, connected(address) as client:
        for _ in range(3):
            await client.send(get("/1") + get("/2")[:9])
            assert (await client.answer())[1] == b"GET /1"
            await client.send(get("/2")[9:])
            assert (await client.answer())[1] == b"GET /2"


@asynchronous
async def test_a_request_may_come_byte_by_byte():
    async with serving() as address, connected(address) as client:
        for byte in get("/slow"):
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.answer())[1] == b"GET /slow"


@pytest.mark.parametrize(
    "message",
    [
        get("/", "Content-Length: 5", method="POST") + b"hello",
        get("/", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n0\r\n\r\n",
        get("/", "Content-Length: 4096", method="POST") + bytes(4096),
    ],
)
@asynchronous
async def test_a_body_is_read_past(message):
    async with serving() as address, connected(address) as client:
        for _ in range(2):
            await client.send(message)
            assert (await client.answer())[1] == b"POST /"
        assert await client.ask("/next") == (200, b"GET /next")


@asynchronous
async def test_who_asks_first_whether_to_send_a_body_is_answered_without_it():
    async with serving() as address, connected(address) as client:
        await client.send(get("/", "Content-Length: 5", "Expect: 100-continue", method="POST"))
        client.half_close()
        assert await client.rest() == ok(b"POST /", close=True)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (b"400 Bad Request", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        (b"400 Bad Request", b"\x00" * 300),
        (b"400 Bad Request", b"GET / HTTP/1.1\r\n\r\n"),
        (b"400 Bad Request", b"GET /\r\n\r\n"),
        (b"505 HTTP Version Not Supported", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (b"400 Bad Request", get("/a b")),
        (b"400 Bad Request", get("/", "Bad Header: x")),
        (b"400 Bad Request", get("/", "X: \0")),
        (b"400 Bad Request", get("/", "Content-Length: 1", "Content-Length: 2")),
        (b"400 Bad Request", get("/", "Content-Length: -1")),
        (b"400 Bad Request", get("/", "Transfer-Encoding: chunked") + b"xyz\r\n"),
        (b"400 Bad Request", get("/", "Content-Length: 5", method="POST") + b"he"),
        (b"400 Bad Request", b"GET / HTT"),
        (b"501 Not Implemented", get("/", "Transfer-Encoding: gzip")),
        (b"431 Request Header Fields Too Large", get("/", "X: " + "x" * 20000)),
        (b"431 Request Header Fields Too Large", get("/" + "x" * 20000)),
        (b"431 Request Header Fields Too Large", b"GET /" + b"x" * 20000),
        (b"405 Method Not Allowed", get("node:443", method="CONNECT")),
        (b"413 Request Entity Too Large", get("/", "Content-Length: 4097") + bytes(4097)),
    ],
)
@asynchronous
async def test_what_cannot_be_served_is_refused_and_ends_the_connection(status, message):
    async with serving() as address:
        assert await once(address, message) == refusal(status)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (b"505 HTTP Version Not Supported", b"HEAD / HTTP/2.0\r\nHost: x\r\n\r\n"),
        (b"431 Request Header Fields Too Large", get("/", "X: " + "x" * 20000, method="HEAD")),
        (
            b"413 Request Entity Too Large",
            get("/", "Content-Length: 4097", method="HEAD") + bytes(4097),
        ),
        (b"400 Bad Request", get("/", "Transfer-Encoding: chunked", method="HEAD") + b"xyz\r\n"),
        (b"400 Bad Request", get("/", "Content-Length: 5", method="HEAD") + b"he"),
    ],
)
@pytest.mark.parametrize("before", [b"", get("/")])
@asynchronous
async def test_a_refused_head_has_no_body(status, message, before):
    async with serving() as address:
        answers = await once(address, before + message)
    headers, _, _ = refusal(status).rpartition(b"\r\n\r\n")
    assert answers == (ok(b"GET /") if before else b"") + headers + b"\r\n\r\n"


@asynchronous
async def test_garbage_after_a_head_is_refused_in_words():
    async with serving() as address:
        answers = await once(address, get("/", method="HEAD") + b"\r\r\r\r")
    assert answers.endswith(refusal(b"400 Bad Request"))


@asynchronous
async def test_requests_before_garbage_are_answered():
    async with serving() as address:
        assert await once(address, get("/") + b"\r\r\r\r") == ok(b"GET /") + refusal(
            b"400 Bad Request"
        )


@asynchronous
async def test_a_client_that_sends_on_after_a_mistake_still_learns_of_it():
    async with serving() as address, connected(address) as client:
        await client.send(b"\x00")
        for _ in range(50):
            await client.send(bytes(1 << 16))
        client.half_close()
        assert await client.rest() == refusal(b"400 Bad Request")


@asynchronous
async def test_a_bug_in_a_page_is_logged_and_costs_that_answer_alone(caplog):
    def broken(request):
        if request.path == "/broken":
            raise ZeroDivisionError
        return Response(200, (), b"fine")

    async with serving(broken) as address, connected(address) as client:
        with caplog.at_level(logging.ERROR):
            assert await client.ask("/broken") == (500, b"500 Internal Server Error")
        assert await client.ask("/") == (200, b"fine")
    assert [record.getMessage() for record in caplog.records] == [
        "GET /broken cannot be answered: a bug"
    ]
