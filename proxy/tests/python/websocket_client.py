"""WebSocket through a sidecar: messages of all kinds and sizes, and every way in which a socket ends."""

import asyncio
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

ADDRESS = {"host": "127.0.0.1", "port": int(sys.argv[1]), "max_size": None, "proxy": None}


def open_socket(path="/"):
    return connect(f"ws://socket.test{path}", **ADDRESS)


def ok(name):
    print(f"ok {name}", flush=True)


async def main():
    async with open_socket() as socket:
        for text in ["hello", "", "\u00e4\u20ac\U0001f41f", "x" * 125, "x" * 126, "x" * 65_536]:
            await socket.send(text)
            assert await socket.recv() == text
        ok("text")
        for data in [b"", bytes(range(256)), os.urandom(70_000)]:
            await socket.send(data)
            assert await socket.recv() == data
        ok("binary")
        await socket.send(["a", "b", "c" * 1000])
        assert await socket.recv() == "ab" + "c" * 1000
        await socket.send("fragments")
        parts = [part async for part in socket.recv_streaming()]
        assert parts[:3] == ["one,", "two,", "three"] and not any(parts[3:]), parts
        ok("fragments")
        data = os.urandom(8_000_000)
        await socket.send(data)
        assert await asyncio.wait_for(socket.recv(), 20) == data
        ok("large")
        await asyncio.wait_for(await socket.ping(b"ping"), 5)
        ok("ping")
        await socket.close(4000, "bye")
        assert (socket.close_code, socket.close_reason) == (4000, "bye"), (socket.close_code, socket.close_reason)
        ok("close by client")
    async with open_socket() as socket:
        await socket.send("close")
        try:
            await socket.recv()
            raise AssertionError("it was not closed")
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as you wish"), closed
        ok("close by server")
    try:
        async with open_socket("/refused"):
            raise AssertionError("it was not refused")
    except InvalidStatus as refused:
        response = refused.response
        assert (response.status_code, response.body, response.headers["x-own"]) == (403, b"no", "yes"), response
        ok("refused")

    async def one(i):
        async with open_socket() as socket:
            for n in range(20):
                await socket.send(f"{i}/{n}")
                assert await asyncio.wait_for(socket.recv(), 10) == f"{i}/{n}"

    await asyncio.gather(*(one(i) for i in range(30)))
    ok("many at once")


asyncio.run(asyncio.wait_for(main(), 50))
