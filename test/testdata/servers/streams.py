"""A server on asyncio's streams that ends well: when it is told to stop it finishes what it has begun, and asks clients of
kept connections to leave with their next response."""
import asyncio
import os
import signal
import sys

ending = asyncio.Event()
HEAD = "HTTP/1.1 200 OK\r\nX-Pid: %d\r\n" % os.getpid()


async def request(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = head.partition("content-length:")[2].partition("\r\n")[0]
    return head.split()[1], "connection: close" in head, await reader.readexactly(int(length or 0))


async def events(writer):
    writer.write((HEAD + "Content-Type: text/event-stream\r\nConnection: close\r\n\r\n").encode())
    number = 0
    while not ending.is_set():
        number += 1
        writer.write(b"id: %d\ndata: tick\n\n" % number)
        await writer.drain()
        await asyncio.sleep(0.05)


async def answer(path, close, body, writer):
    if path == "/slow":
        await asyncio.sleep(0.3)
    body = body or b"hello\n"
    close = close or ending.is_set()
    head = HEAD + "Content-Length: %d\r\n%s\r\n" % (len(body), "Connection: close\r\n" if close else "")
    writer.write(head.encode() + body)
    await writer.drain()
    return close


async def connection(reader, writer):
    try:
        close = False
        while not close:
            path, close, body = await request(reader)
            if path == "/events":
                close = True
                await events(writer)
            else:
                close = await answer(path, close, body, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has left
    finally:
        writer.close()


async def main(host, port):
    connections = set()

    async def serve(reader, writer):
        task = asyncio.current_task()
        connections.add(task)
        await connection(reader, writer)
        connections.discard(task)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    await asyncio.start_server(serve, host, int(port))
    await ending.wait()
    if connections:
        await asyncio.wait(connections, timeout=5)


asyncio.run(main(*sys.argv[1].split(":")))
