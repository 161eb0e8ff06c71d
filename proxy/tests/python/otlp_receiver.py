"""An OTLP receiver by others' libraries (grpcio, protobuf, opentelemetry-proto): gRPC and HTTP on free ports.

The first line tells the ports; each export is one further line of JSON, with every field that was set. Arguments: the
certificate chain, its key, and the authorities of clients; with them both ports speak TLS and ask for a client certificate.
"""

import gzip
import json
import ssl
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace

SIGNALS = {
    "traces": ("trace.v1.TraceService", trace.ExportTraceServiceRequest, trace.ExportTraceServiceResponse),
    "metrics": ("metrics.v1.MetricsService", metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
    "logs": ("logs.v1.LogsService", logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse),
}

lock = threading.Lock()


def tell(what):
    with lock:
        print(json.dumps(what), flush=True)


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(one) for one in any_value.array_value.values]
    return getattr(any_value, kind)


def attributes(pairs):
    keys = [pair.key for pair in pairs]
    assert len(set(keys)) == len(keys), f"a key twice: {keys}"
    return {pair.key: value(pair.value) for pair in pairs}


def span(one, resource, scope):
    assert not one.ListFields() or all(field.number <= 16 for field, _ in one.ListFields())
    return {
        "resource": attributes(resource.attributes),
        "scope": scope.name,
        "trace": one.trace_id.hex(),
        "id": one.span_id.hex(),
        "parent": one.parent_span_id.hex(),
        "state": one.trace_state,
        "flags": one.flags,
        "name": one.name,
        "kind": one.kind,
        "start": one.start_time_unix_nano,
        "end": one.end_time_unix_nano,
        "attributes": attributes(one.attributes),
        "events": [[event.name, event.time_unix_nano] for event in one.events],
        "status": [one.status.code, one.status.message],
    }


def read(signal, request):
    if signal == "traces":
        return [
            span(one, group.resource, scoped.scope)
            for group in request.resource_spans
            for scoped in group.scope_spans
            for one in scoped.spans
        ]
    if signal == "metrics":
        return [
            {"name": one.name, "unit": one.unit, "kind": one.WhichOneof("data")}
            for group in request.resource_metrics
            for scoped in group.scope_metrics
            for one in scoped.metrics
        ]
    return [
        {"body": value(one.body), "attributes": attributes(one.attributes), "trace": one.trace_id.hex()}
        for group in request.resource_logs
        for scoped in group.scope_logs
        for one in scoped.log_records
    ]


def export(signal, how, headers, request):
    tell({"signal": signal, "how": how, "headers": headers, "items": read(signal, request)})


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        signal = self.path.removeprefix("/v1/")
        _, request, response = SIGNALS[signal]
        assert self.headers["content-type"] == "application/x-protobuf"
        headers = {name.lower(): text for name, text in self.headers.items()}
        export(signal, "http", headers, request.FromString(body))
        answer = response().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def handler(signal):
    service, request, response = SIGNALS[signal]

    def answer(message, context):
        export(signal, "grpc", dict(context.invocation_metadata()), message)
        return response()

    method = grpc.unary_unary_rpc_method_handler(answer, request.FromString, response.SerializeToString)
    return grpc.method_handlers_generic_handler(f"opentelemetry.proto.collector.{service}", {"Export": method})


def main():
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([handler(signal) for signal in SIGNALS])
    web = ThreadingHTTPServer(("127.0.0.1", 0), Http)
    if sys.argv[1:]:
        chain, key, clients = sys.argv[1:]
        texts = [open(path, "rb").read() for path in (key, chain, clients)]
        credentials = grpc.ssl_server_credentials([(texts[0], texts[1])], texts[2], True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
        context.load_cert_chain(chain, key)
        context.verify_mode = ssl.CERT_REQUIRED
        web.socket = context.wrap_socket(web.socket, server_side=True)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    tell({"grpc": port, "http": web.server_address[1]})
    web.serve_forever()


main()
