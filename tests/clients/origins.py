"""The targets: a plain HTTP/1.1 origin, a WebSocket server and a gRPC server, in this process.

Written for what clients are asked to show, not for speed. The HTTP origin parses by hand, so that
it can answer in every framing and say exactly what it was sent.
"""

import asyncio
import hashlib
import json
import pathlib
import threading
import time


def body(length):
    """The same bytes for the same length, unlike each other all along."""
    unit = b"".join(hashlib.sha256(b"%d" % at).digest() for at in range(256))
    return (unit * (length // len(unit) + 1))[:length]


class HttpOrigin:
    """Answers over HTTP/1.1; what browsers report is kept in `reports`."""

    def __init__(self):
        self.reports = {}
        self.reported = asyncio.Event()

    async def start(self):
        server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
        return server.sockets[0].getsockname()[1]

    async def connected(self, reader, writer):
        try:
            while await self.exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def exchange(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
        except asyncio.IncompleteReadError:
            return False
        line, *fields = head.strip().split("\r\n")
        method, target, _ = line.split(" ")
        headers = {}
        for field in fields:
            name, _, value = field.partition(":")
            headers.setdefault(name.lower(), []).append(value.strip())
        sent = await self.received(reader, headers)
        path, _, query = target.partition("?")
        name, _, rest = path.strip("/").partition("/")
        answer = getattr(self, f"answer_{name}", None)
        if answer is None:
            self.plain(writer, 404, b"no such path\n")
        else:
            await answer(writer, rest, {"method": method, "target": target, "query": query,
                                        "headers": headers, "body": sent})
        await writer.drain()
        return True

    async def received(self, reader, headers):
        """A request's body, whichever way it is framed."""
        if "transfer-encoding" not in headers:
            return await reader.readexactly(int(headers.get("content-length", ["0"])[0]))
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append((await reader.readexactly(size + 2))[:-2])
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return b"".join(parts)

    def plain(self, writer, status, content, kind="text/plain", extra=""):
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n"
        writer.write((head + extra + "\r\n").encode() + content)

    def chunks(self, writer, kind="application/octet-stream"):
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncache-control: no-store\r\n"
        writer.write((head + "transfer-encoding: chunked\r\n\r\n").encode())

    def chunk(self, writer, part):
        writer.write(b"%x\r\n" % len(part) + part + b"\r\n")

    async def answer_bytes(self, writer, rest, request):
        content = body(int(rest))
        if request["method"] == "HEAD":
            head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(content)}\r\n\r\n"
            writer.write(head.encode())
        else:
            self.plain(writer, 200, content, "application/octet-stream")

    async def answer_chunked(self, writer, rest, request):
        content = body(int(rest))
        self.chunks(writer)
        for at in range(0, len(content), 10_000):
            self.chunk(writer, content[at:at + 10_000])
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async def answer_slow(self, writer, rest, request):
        """So many pieces, 50 ms apart, each with the moment it was sent."""
        self.chunks(writer, "text/plain")
        for _ in range(int(rest)):
            self.chunk(writer, f"{time.time():.6f}\n".encode())
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")

    async def answer_events(self, writer, rest, request):
        """Server-sent events, then silence until the client goes."""
        self.chunks(writer, "text/event-stream")
        for at in range(int(rest)):
            self.chunk(writer, f"id: {at}\nevent: tick\ndata: tick {at}\n\n".encode())
            await writer.drain()
            await asyncio.sleep(0.05)
        await self.reported.wait()
        writer.write(b"0\r\n\r\n")

    async def answer_echo(self, writer, rest, request):
        digest = hashlib.sha256(request.pop("body"))
        said = dict(request, sha256=digest.hexdigest())
        self.plain(writer, 200, json.dumps(said).encode(), "application/json")

    async def answer_status(self, writer, rest, request):
        self.plain(writer, int(rest), b"", extra="x-origin: yes\r\n")

    async def answer_page(self, writer, rest, request):
        page = pathlib.Path(__file__).with_name("page.html").read_bytes()
        self.plain(writer, 200, page, "text/html; charset=utf-8")

    async def answer_report(self, writer, rest, request):
        self.reports = json.loads(request["body"])
        self.reported.set()
        self.plain(writer, 200, b"")

    async def answer_held(self, writer, rest, request):
        """An image that comes when the page has reported: a browser waits for it."""
        await asyncio.wait_for(self.reported.wait(), 30)
        self.plain(writer, 200, b"", "image/png")


async def start_websockets(closes):
    """Echoes, but for three texts; `closes` gets the path, code and reason of each close."""
    from websockets.asyncio.server import serve
    from websockets.exceptions import ConnectionClosed

    async def connected(connection):
        try:
            async for message in connection:
                if message == "close, please":
                    await connection.close(4002, "as you wish")
                elif message == "what came?":
                    request = connection.request
                    names = ("Host", "X-Forwarded-Proto", "X-Forwarded-For", "Origin", "Via")
                    said = {name: request.headers.get(name) for name in names}
                    await connection.send(json.dumps(dict(said, path=request.path)))
                elif message == "ping me":
                    await asyncio.wait_for(await connection.ping(b"from the origin"), 10)
                    await connection.send("ponged")
                else:
                    await connection.send(message)
        except ConnectionClosed:
            pass
        finally:
            closes.put((connection.request.path, connection.close_code, connection.close_reason))

    def gate(connection, request):
        if request.path.startswith("/socket/closed"):
            return connection.respond(403, "not here\n")

    def choose(connection, offered):
        return next((name for name in ("chat.v2", "chat.v1") if name in offered), None)

    server = await serve(connected, "127.0.0.1", 0, process_request=gate, max_size=8 << 20,
                         select_subprotocol=choose)
    return server.sockets[0].getsockname()[1]


class Calls:
    """What a gRPC server was told, besides its messages."""

    def __init__(self):
        self.left = None
        self.cancelled = threading.Event()
        self.go_on = threading.Event()


def start_grpc(calls):
    """A server with methods of bytes: no generated code."""
    from concurrent import futures

    import grpc

    def unary(request, context):
        metadata = dict(context.invocation_metadata())
        calls.left = context.time_remaining()
        context.send_initial_metadata((("x-begin", metadata.get("x-ask", "")),))
        context.set_trailing_metadata((("x-end", "done"), ("x-end-bin", b"\x00\xff")))
        return request[::-1]

    def split(request, context):
        yield request[:1]
        if not calls.go_on.wait(20):
            context.abort(grpc.StatusCode.ABORTED, "the first message did not arrive by itself")
        for at in range(1, len(request)):
            yield request[at:at + 1]

    def join(requests, context):
        return b"".join(requests)

    def each(requests, context):
        for request in requests:
            yield request.upper()

    def refuse(request, context):
        context.set_trailing_metadata((("x-why", "because"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing: 100 % gone, été")

    def sleep(request, context):
        calls.left = context.time_remaining()
        ended = threading.Event()
        context.add_callback(ended.set)
        if ended.wait(20):
            calls.cancelled.set()
        return b"too late"

    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Split": grpc.unary_stream_rpc_method_handler(split),
        "Join": grpc.stream_unary_rpc_method_handler(join),
        "Each": grpc.stream_stream_rpc_method_handler(each),
        "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
        "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
    }
    limits = [("grpc.max_receive_message_length", 16 << 20)]
    server = grpc.server(futures.ThreadPoolExecutor(32), options=limits)
    handler = grpc.method_handlers_generic_handler("clients.Calls", methods)
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port
