#!/bin/bash
# Starts pilotfish-proxy for a harness that fills in ours.json: ours.sh ROLE DIR LISTEN UPSTREAM_PORT[,...]
# The configuration is that of `make bench`: ten rules with header edits, a consistent hash on x-hash.
# The harness's clients call the service by several names and by the proxy's own address, so its rules are for every host.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
proxy=${PILOTFISH_PROXY:-$here/../../target/release/pilotfish-proxy}
if [ "$1" = version ]; then exec "$proxy" --version; fi
dir=$2 listen=$3 ports=${4//,/ }
mkdir -p "$dir/conf"

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
  for port in $ports; do echo "  - {address: 127.0.0.1, ports: {http: $port}}"; done
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

exec "$proxy" --config "$dir/conf" --agent bench --outbound "127.0.0.1:$listen" --inbound 127.0.0.1:0 \
  --admin 127.0.0.1:0 --admin-socket "$dir/admin.sock" --workers 1
