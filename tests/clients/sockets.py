"""Claims about WebSockets through the proxy, made with Python's websockets over HTTP/1.1."""

import asyncio
import json
import os
import ssl

from claims import check, claim, equal
from setting import NAME


def websocket_claim(says):
    """A claim that holds in clear text and over TLS; it gets a way to connect."""

    def register(function):
        @claim("websockets", says, modules=["websockets"])
        def on_each(setting):
            from websockets.asyncio.client import connect

            trusting = ssl.create_default_context(cafile=setting.chain)
            for scheme, port, context in [("ws", setting.port, None),
                                          ("wss", setting.tls_port, trusting)]:
                def to(path, **how):
                    secure = {"ssl": context, "server_hostname": NAME} if context else {}
                    return connect(f"{scheme}://{NAME}:{port}{path}", host="127.0.0.1", port=port,
                                   max_size=8 << 20, open_timeout=20, proxy=None, **secure, **how)

                asyncio.run(asyncio.wait_for(function(setting, to, scheme), 60))

        return on_each

    return register


@websocket_claim("texts, bytes and fragments come back")
async def echo(setting, to, scheme):
    async with to("/socket") as socket:
        for message in ["", "hello", "été ☃", b"", b"\x00\xff" * 10, os.urandom(100_000),
                        "x" * 200_000, os.urandom(2 << 20)]:
            await socket.send(message)
            equal(await socket.recv(), message, "message")
        await socket.send(["one, ", "two, ", "three"])
        equal(await socket.recv(), "one, two, three", "fragments")
        check(any("deflate" in extension.name for extension in socket.protocol.extensions),
              "compression is not agreed on")
    async with to("/socket", compression=None) as socket:
        await socket.send(b"plain" * 1000)
        equal(await socket.recv(), b"plain" * 1000, "without compression")


@websocket_claim("pings are answered in both directions")
async def pings(setting, to, scheme):
    async with to("/socket") as socket:
        check(await (await socket.ping(b"from the client")) >= 0)
        await socket.send("ping me")
        equal(await socket.recv(), "ponged", "the origin's ping")


@websocket_claim("close codes and reasons arrive in both directions")
async def closes(setting, to, scheme):
    from websockets.exceptions import ConnectionClosed

    path = f"/socket/closes/{scheme}"
    async with to(path) as socket:
        await socket.close(4001, "I have seen enough")
    # Others come to their end at this time, too.
    while (seen := await asyncio.to_thread(setting.closes.get, timeout=10))[0] != path:
        pass
    equal(seen, (path, 4001, "I have seen enough"), "what the origin saw")
    async with to("/socket") as socket:
        await socket.send("close, please")
        try:
            raise AssertionError(f"not closed, but {await socket.recv()!r}")
        except ConnectionClosed as closed:
            equal((closed.rcvd.code, closed.rcvd.reason), (4002, "as you wish"), "close")


@websocket_claim("the handshake keeps its protocol, its path and who asked")
async def handshake(setting, to, scheme):
    async with to("/socket/deep?a=b", subprotocols=["chat.v1", "other"],
                  origin="https://elsewhere.test") as socket:
        equal(socket.subprotocol, "chat.v1", "protocol")
        await socket.send("what came?")
        said = json.loads(await socket.recv())
        equal(said["path"], "/socket/deep?a=b", "path")
        equal(said["X-Forwarded-Proto"], "https" if scheme == "wss" else "http", "scheme")
        equal((said["X-Forwarded-For"], said["Origin"]), ("127.0.0.1", "https://elsewhere.test"))
        check(said["Host"].startswith(NAME), said)


@websocket_claim("a refusal of the origin or of the proxy is told as it is")
async def refusals(setting, to, scheme):
    from websockets.exceptions import InvalidStatus

    for path, status in [("/socket/closed", 403), ("/none", 404), ("/http/bytes/3", 200)]:
        try:
            async with to(path):
                raise AssertionError(f"{path} is a WebSocket")
        except InvalidStatus as refused:
            equal(refused.response.status_code, status, path)


@websocket_claim("a hundred connections at once keep apart")
async def many(setting, to, scheme):
    async def talk(number):
        async with to("/socket") as socket:
            for at in range(20):
                await socket.send(f"{number} {at}")
                equal(await socket.recv(), f"{number} {at}", "message")

    await asyncio.gather(*[talk(number) for number in range(100)])
