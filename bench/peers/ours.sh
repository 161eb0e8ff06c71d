#!/bin/bash
# Starts pilotfish-proxy for a harness that fills in ours.json: ours.sh ROLE DIR LISTEN UPSTREAM_PORT[,...] [CERT KEY CA]
# Roles outbound and inbound are the two sides of a mesh with mutual TLS between them: they get a certificate chain, its
# key and the root. The other side is the workload that the certificate names.
# The configuration is that of `make bench`: ten rules with header edits, a consistent hash on x-hash.
# The harness's clients call the service by several names and by the proxy's own address, so its rules are for every host.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
proxy=${PILOTFISH_PROXY:-$here/../../target/release/pilotfish-proxy}
if [ "$1" = version ]; then exec "$proxy" --version; fi
role=$1 dir=$2/$1 listen=$3 ports=${4//,/ }
mkdir -p "$dir/conf"
listeners=(--outbound "127.0.0.1:$listen" --inbound 127.0.0.1:0)
endpoint= identity=()
case $role in outbound | inbound)
  identity=(--identity-cert "$5" --identity-key "$6" --trust-bundle "$7")
  # Names of this certificate: the endpoint's identity is what its URI says.
  endpoint=", labels: {pilotfish.dev/agent: app, pilotfish.dev/mesh: \"true\"}"
  id=$(openssl x509 -in "$5" -noout -ext subjectAltName | sed -n 's/.*URI:\([^,]*\).*/\1/p')
esac
if [ "$role" = inbound ]; then
  listeners=(--outbound 127.0.0.1:0 --inbound "127.0.0.1:$listen" --app "127.0.0.1:$ports")
fi

route='    route:
    - destination:
        host: app.local
        port:
          number: 80'

{
  cat <<END
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: app, namespace: bench}
spec:
  hosts: [app.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints:
END
  for port in $ports; do echo "  - {address: 127.0.0.1, ports: {http: $port}$endpoint}"; done
  if [ -n "${id-}" ]; then echo "  subjectAltNames: [\"$id\"]"; fi
  cat <<END
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: app, namespace: bench}
spec:
  host: app.local
  trafficPolicy:
    loadBalancer: {consistentHash: {httpHeaderName: x-hash}}
    connectionPool: {http: {h2UpgradePolicy: DO_NOT_UPGRADE}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: app, namespace: bench}
spec:
  hosts: ["*"]
  http:
END
  for agent in 1 2 3 4 5 6 7 8 9; do
    cat <<END
  - match: [{uri: {prefix: /agents/$agent/}}]
    headers: {request: {set: {x-route: agent-$agent}}}
$route
END
  done
  cat <<END
  - headers: {request: {set: {x-route: rest}}, response: {remove: [x-internal]}}
$route
END
} >"$dir/conf/mesh.yaml"

exec "$proxy" --config "$dir/conf" --agent bench "${listeners[@]}" \
  --admin 127.0.0.1:0 --admin-socket "$dir/admin.sock" --workers 1 "${identity[@]}"
