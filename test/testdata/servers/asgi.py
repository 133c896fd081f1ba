import asyncio
import os


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", scope["path"] == "/echo"
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"] == "/slow":
        await asyncio.sleep(0.3)
    body = body or b"hello\n"
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-length", str(len(body)).encode()),
        (b"x-pid", str(os.getpid()).encode()),
    ]})
    await send({"type": "http.response.body", "body": body})
