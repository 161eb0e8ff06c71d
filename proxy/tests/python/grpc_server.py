"""A gRPC server without generated code: messages are bytes. Prints its port first."""

import time
from concurrent import futures

import grpc


def unary(request, context):
    return b"seen " + request


def metadata(request, context):
    sent = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", "i"),))
    context.set_trailing_metadata((("x-trailing", "t"), ("x-data-bin", b"\x00\xff")))
    return sent.get("x-sent", "").encode()


def down(request, context):
    for i in range(int(request)):
        yield b"%d" % i
        time.sleep(0.02)


def up(requests, context):
    return b",".join(requests)


def both(requests, context):
    for request in requests:
        yield b"echo " + request


def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not yet: 50% \u00e4")


def partly(request, context):
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "lost")


def slow(request, context):
    gone = []
    context.add_callback(lambda: gone.append(1))
    for _ in range(200):
        if gone:
            CANCELLED.append(request)
            return b""
        time.sleep(0.02)
    return b"late"


def cancelled(request, context):
    return b"yes" if request in CANCELLED else b"no"


CANCELLED = []
METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Up": grpc.stream_unary_rpc_method_handler(up),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Partly": grpc.unary_stream_rpc_method_handler(partly),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
    "Cancelled": grpc.unary_unary_rpc_method_handler(cancelled),
}

server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), options=[("grpc.max_receive_message_length", -1)])
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", METHODS),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
