"""Reads /metrics in both formats with the parsers of Prometheus' own library."""

import sys
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

url = f"http://127.0.0.1:{sys.argv[1]}/metrics"


def get(accept, content_type):
    request = urllib.request.Request(url, headers={"accept": accept})
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.headers["content-type"] == content_type, answer.headers["content-type"]
        return answer.read().decode()


old = list(text(get("text/plain", "text/plain; version=0.0.4; charset=utf-8")))
assert len(old) > 30, len(old)
print("ok text")

prometheus = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
new = list(openmetrics(get(prometheus, "application/openmetrics-text; version=1.0.0; charset=utf-8")))
print("ok openmetrics")


def bare(families):
    return {family.name.removesuffix("_total").removesuffix("_info") for family in families}


assert bare(old) == bare(new), bare(old) ^ bare(new)
print("ok the same families")

server = next(f for f in new if f.name == "http_server_request_duration_seconds")
counts = [s for s in server.samples if s.name.endswith("_count")]
good = [s for s in counts if s.labels.get("http_response_status_code") == "200"]
assert [s.value for s in good] == [2.0], counts
assert good[0].labels["http_request_method"] == "GET" and good[0].labels["pilotfish_direction"] == "outbound"
assert good[0].labels["http_route"], good
client = next(f for f in new if f.name == "http_client_request_duration_seconds")
assert any(s.labels.get("server_address") == "agent.test:80" for s in client.samples), client.samples
print("ok calls")

for family in (server, client):
    exemplars = [s.exemplar for s in family.samples if s.exemplar]
    assert exemplars, family.name
    for exemplar in exemplars:
        assert len(exemplar.labels["trace_id"]) == 32 and len(exemplar.labels["span_id"]) == 16, exemplar
        assert float(exemplar.timestamp) > 1.7e9, exemplar
print("ok exemplar")
