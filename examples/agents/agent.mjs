// An agent in Node beside its sidecar. It needs no proxy setting: the sidecar is its base URL, Host says who is meant.
import http from "node:http";
const [port, sidecar] = process.argv.slice(2); // e.g. 8002 http://127.0.0.1:15101

http.createServer((request, response) => {
  if (request.url !== "/ask") return response.end("hello from the Node agent\n");
  http.get(sidecar, { headers: { host: "python-agent", "agent-affinity-key": "me" } }, (answer) => answer.pipe(response))
    .on("error", (error) => response.writeHead(502).end(`${error}\n`));
}).listen(Number(port), "127.0.0.1");
