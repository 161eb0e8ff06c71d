"""An agent in Python beside its sidecar. Its calls find the sidecar by HTTP_PROXY, which urllib, requests and httpx read."""
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen


class Agent(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello from the Python agent\n"
        if self.path == "/ask":  # a name that only the mesh knows
            body = urlopen(Request("http://node-agent/", headers={"agent-affinity-key": "me"})).read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Agent).serve_forever()
