"""gRPC through a sidecar: every kind of call, and every way in which one ends."""

import sys
import threading
import time
from concurrent import futures

import grpc

OPTIONS = [
    ("grpc.default_authority", "grpc.test"),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
]
channel = grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}", options=OPTIONS)
PATH = "/test.Echo/"


def ok(name):
    print(f"ok {name}", flush=True)


def status(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("no error")


unary = channel.unary_unary(PATH + "Unary")
assert unary(b"hello", timeout=5) == b"seen hello"
assert unary(b"", timeout=5) == b"seen "
ok("unary")

large = b"x" * 3_000_000
assert unary(large, timeout=20) == b"seen " + large
ok("large")

response, call = channel.unary_unary(PATH + "Metadata").with_call(b"", timeout=5, metadata=(("x-sent", "s"),))
assert response == b"s"
assert dict(call.initial_metadata())["x-initial"] == "i"
trailing = dict(call.trailing_metadata())
assert trailing["x-trailing"] == "t" and trailing["x-data-bin"] == b"\x00\xff", trailing
ok("metadata")

times = []
for i, message in enumerate(channel.unary_stream(PATH + "Down")(b"20", timeout=10)):
    assert message == b"%d" % i
    times.append(time.monotonic())
assert len(times) == 20 and times[-1] - times[0] > 0.2, "the messages came all at once"
ok("server streaming")

assert channel.stream_unary(PATH + "Up")((b"%d" % i for i in range(50)), timeout=10) == b",".join(b"%d" % i for i in range(50))
assert channel.stream_unary(PATH + "Up")(iter(()), timeout=10) == b""
ok("client streaming")


def turns():
    """Each message is sent only when the one before it came back."""
    for i in range(20):
        assert turn.wait(5)
        turn.clear()
        yield b"%d" % i


turn = threading.Event()
turn.set()
count = 0
for message in channel.stream_stream(PATH + "Both")(turns(), timeout=10):
    assert message == b"echo %d" % count
    count += 1
    turn.set()
assert count == 20
assert list(channel.stream_stream(PATH + "Both")(iter(()), timeout=10)) == []
ok("both streaming")

# A method that is not there is answered with trailers alone.
code, _ = status(lambda: channel.unary_unary(PATH + "Nothing")(b"", timeout=5))
assert code == grpc.StatusCode.UNIMPLEMENTED, code
code, _ = status(lambda: channel.unary_unary("/test.Other/Nothing")(b"", timeout=5))
assert code == grpc.StatusCode.UNIMPLEMENTED, code
ok("trailers only")

code, details = status(lambda: channel.unary_unary(PATH + "Fail")(b"", timeout=5))
assert (code, details) == (grpc.StatusCode.FAILED_PRECONDITION, "not yet: 50% \u00e4"), (code, details)
code, details = status(lambda: list(channel.unary_stream(PATH + "Partly")(b"", timeout=5)))
assert (code, details) == (grpc.StatusCode.DATA_LOSS, "lost"), (code, details)
ok("status")

begin = time.monotonic()
code, _ = status(lambda: channel.unary_unary(PATH + "Slow")(b"deadline", timeout=0.3))
assert code == grpc.StatusCode.DEADLINE_EXCEEDED and time.monotonic() - begin < 2, code
ok("deadline")

call = channel.unary_unary(PATH + "Slow").future(b"cancel", timeout=10)
time.sleep(0.2)
call.cancel()
until = time.monotonic() + 5
while channel.unary_unary(PATH + "Cancelled")(b"cancel", timeout=5) != b"yes":
    assert time.monotonic() < until, "the server does not learn of the cancellation"
    time.sleep(0.05)
stream = channel.unary_stream(PATH + "Down")(b"1000", timeout=10)
assert next(stream) == b"0"
stream.cancel()
code, _ = status(lambda: list(stream))
assert code == grpc.StatusCode.CANCELLED, code
ok("cancel")

with futures.ThreadPoolExecutor(20) as pool:
    answers = list(pool.map(lambda i: unary(b"%d" % i, timeout=10), range(400)))
assert answers == [b"seen %d" % i for i in range(400)]
ok("many at once")

other = grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}", options=[("grpc.default_authority", "nobody.test"), ("grpc.enable_http_proxy", 0)])
code, _ = status(lambda: other.unary_unary(PATH + "Unary")(b"", timeout=5))
assert code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE), code
ok("unavailable")
