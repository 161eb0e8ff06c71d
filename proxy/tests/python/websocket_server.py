"""A WebSocket server that echoes, frame by frame as it came. Prints its port first."""

import asyncio

from websockets.asyncio.server import serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response


async def echo(socket):
    while True:
        try:
            message = await socket.recv()
        except ConnectionClosed:
            return
        if message == "close":
            await socket.close(4001, "as you wish")
        elif message == "fragments":
            await socket.send(["one,", "two,", "three"])
        else:
            await socket.send(message)


def refuse(connection, request):
    if request.path == "/refused":
        return Response(403, "Forbidden", Headers({"Content-Length": "2", "x-own": "yes"}), b"no")
    return None


async def main():
    async with serve(echo, "127.0.0.1", 0, process_request=refuse, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
