"""Claims about gRPC through the proxy, made with Python's grpcio and no generated code."""

import time

from claims import check, claim, equal
from setting import NAME


def channels(setting):
    """A channel in clear text and one over TLS, both to the proxy."""
    import grpc

    options = [("grpc.default_authority", NAME), ("grpc.max_receive_message_length", 16 << 20)]
    clear = grpc.insecure_channel(f"127.0.0.1:{setting.port}", options)
    credentials = grpc.ssl_channel_credentials(setting.chain.read_bytes())
    options = options + [("grpc.ssl_target_name_override", NAME)]
    secure = grpc.secure_channel(f"127.0.0.1:{setting.tls_port}", credentials, options)
    for channel in (clear, secure):
        with channel:
            yield channel


def grpc_claim(says):
    """A claim that holds on each channel."""

    def register(function):
        @claim("grpcio", says, modules=["grpc"])
        def on_each(setting):
            for channel in channels(setting):
                function(setting, channel)

        return on_each

    return register


def fails(call):
    """The error that a call ends with."""
    import grpc

    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call does not fail")


@grpc_claim("a unary call, its metadata and its trailers")
def unary(setting, channel):
    call = channel.unary_unary("/clients.Calls/Unary")
    answer, ended = call.with_call(b"abc", metadata=(("x-ask", "who"),), timeout=20)
    equal(answer, b"cba", "answer")
    check(("x-begin", "who") in ended.initial_metadata(), ended.initial_metadata())
    trailers = dict(ended.trailing_metadata())
    equal((trailers.get("x-end"), trailers.get("x-end-bin")), ("done", b"\x00\xff"), "trailers")
    large = bytes(range(256)) * 8192
    equal(call(large, timeout=30), large[::-1], "two megabytes")
    equal(call(b"", timeout=20), b"", "nothing")


@grpc_claim("hundreds of calls at once on one channel")
def many(setting, channel):
    call = channel.unary_unary("/clients.Calls/Unary")
    futures = [call.future(b"%d" % at, timeout=30) for at in range(400)]
    for at, future in enumerate(futures):
        equal(future.result(), (b"%d" % at)[::-1], "answer")


@grpc_claim("a stream of the server comes message by message")
def server_stream(setting, channel):
    setting.calls.go_on.clear()
    received = []
    for message in channel.unary_stream("/clients.Calls/Split")(b"stream", timeout=20):
        received.append(message)
        # The server sends the second only now that the first is here.
        setting.calls.go_on.set()
    equal(received, [b"s", b"t", b"r", b"e", b"a", b"m"], "messages")


@grpc_claim("a stream of the client arrives whole")
def client_stream(setting, channel):
    messages = [b"%d," % at for at in range(1000)]
    joined = channel.stream_unary("/clients.Calls/Join")(iter(messages), timeout=20)
    equal(joined, b"".join(messages), "messages")


@grpc_claim("streams both ways take turns")
def both_streams(setting, channel):
    received = []

    def questions():
        # Each question waits for the answer to the one before.
        for at in range(20):
            until = time.monotonic() + 10
            while len(received) < at:
                check(time.monotonic() < until, "an answer does not come while the stream is open")
                time.sleep(0.001)
            yield b"q%d" % at

    for answer in channel.stream_stream("/clients.Calls/Each")(questions(), timeout=20):
        received.append(answer)
    equal(received, [b"Q%d" % at for at in range(20)], "answers")


@grpc_claim("a status, its text and its trailers arrive")
def status(setting, channel):
    import grpc

    error = fails(lambda: channel.unary_unary("/clients.Calls/Refuse")(b"", timeout=20))
    equal(error.code(), grpc.StatusCode.NOT_FOUND, "status")
    equal(error.details(), "nothing: 100 % gone, été", "details")
    equal(dict(error.trailing_metadata()).get("x-why"), "because", "trailers")


@grpc_claim("a deadline reaches the server, and ends the call")
def deadline(setting, channel):
    import grpc

    setting.calls.left = None
    setting.calls.cancelled.clear()
    begun = time.monotonic()
    error = fails(lambda: channel.unary_unary("/clients.Calls/Sleep")(b"", timeout=0.5))
    equal(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED, "status")
    check(time.monotonic() - begun < 5, "the deadline is late")
    left = setting.calls.left
    # Rounded up on the way.
    check(left is not None and 0 < left < 0.6, f"the server was told {left} s")
    check(setting.calls.cancelled.wait(10), "the server does not see the end")


@grpc_claim("a call that its caller gives up ends at the server")
def cancelled(setting, channel):
    import grpc

    setting.calls.left = None
    setting.calls.cancelled.clear()
    future = channel.unary_unary("/clients.Calls/Sleep").future(b"")
    until = time.monotonic() + 10
    while setting.calls.left is None:
        check(time.monotonic() < until, "the call does not reach the server")
        time.sleep(0.005)
    future.cancel()
    equal(future.code(), grpc.StatusCode.CANCELLED, "status")
    check(setting.calls.cancelled.wait(10), "the server does not see the end")


@grpc_claim("what the proxy refuses is a status of gRPC")
def refused(setting, channel):
    import grpc

    for method, code in [
        ("/clients.Unknown/Call", grpc.StatusCode.UNIMPLEMENTED),
        ("/clients.Calls/Unknown", grpc.StatusCode.UNIMPLEMENTED),
        ("/clients.Nobody/Call", grpc.StatusCode.UNAVAILABLE),
    ]:
        error = fails(lambda: channel.unary_unary(method)(b"", timeout=20))
        equal(error.code(), code, method)
