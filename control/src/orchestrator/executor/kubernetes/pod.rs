//! A group's pod: the agent, its sidecar, what they need, how they are secured and looked after.
//!
//! Nothing in here may depend on the leader's term, on the number of replicas or on the time: each change of a template
//! starts every replica anew.

use pilotfish_config::model::{AgentAffinity, TaintEffect, Toleration, Topology};
use serde_json::{Map, Value, json};

use super::{AGENT, DEPLOYMENT, NAMESPACE, Settings, name};
use crate::placement::demand::Wanted;
use crate::placement::world::Need;

/// Where the agent listens unless its environment says otherwise; it shares this with nobody but its sidecar.
const PORT: u16 = 8000;
/// The sidecar's outbound listener.
const OUTBOUND: &str = "http://127.0.0.1:15001";
/// What the agent asks without it.
const LOOPBACK: &str = "localhost,127.0.0.1,::1";
/// The sidecar may not be asked for longer than this by callers that are being served when it ends (its own default).
const DRAIN: u64 = 45;
/// From the decision that a pod ends to SIGTERM for its agent. The sidecar leaves the mesh at once, so that no new calls come, and
/// serves on meanwhile: calls in flight end, those that they need included.
const LEAVING: u64 = 10;
/// Kubernetes' own share in the end of a pod.
const SPARE: u64 = 5;
/// Docker's, and `Runtime::stop_timeout`'s default.
const STOP: u64 = 10;
/// The sidecar's user; the agent's is another, so that it cannot read the sidecar's key.
const SIDECAR_USER: u32 = 65532;
const AGENT_USER: u32 = 10001;

/// The sidecar's administration.
const SOCKET: &str = "/run/pilotfish-proxy/admin.sock";

/// `nvidia.com/gpu`, as NVIDIA's device plugin offers cards.
const CARD: &str = "nvidia.com/gpu";

/// The template of a group's pods, without labels.
pub fn spec(settings: &Settings, wanted: &Wanted, object: &str) -> Value {
    let group = &wanted.group;
    let stop = group.runtime.stop_timeout.map_or(STOP, |stop| stop.as_secs() + 1);
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": DRAIN + LEAVING + stop + SPARE,
        "securityContext": {
            "runAsNonRoot": true,
            "fsGroup": SIDECAR_USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "initContainers": [sidecar(settings, wanted)],
        "containers": [agent(wanted)],
        "volumes": [
            { "name": "join", "secret": { "secretName": object, "defaultMode": 0o440 } },
            { "name": "state", "emptyDir": { "medium": "Memory", "sizeLimit": "64Mi" } },
            { "name": "run", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
        ],
        "topologySpreadConstraints": spread(object),
    });
    let mut set = |key: &str, value: Value| {
        if !matches!(&value, Value::Object(map) if map.is_empty())
            && !matches!(&value, Value::Array(all) if all.is_empty())
        {
            spec[key] = value;
        }
    };
    set("nodeSelector", node_selector(wanted));
    set("tolerations", tolerations(wanted));
    set("affinity", affinity(settings, wanted));
    spec
}

/// Where the agent listens.
fn port(wanted: &Wanted) -> u16 {
    let said = wanted.group.runtime.env.iter().find(|(key, _)| *key == "PORT");
    said.and_then(|(_, port)| port.parse().ok()).filter(|port| *port > 0).unwrap_or(PORT)
}

/// A text that Kubernetes takes as it is: `$(NAME)` would be another variable.
fn plain(text: &str) -> String {
    text.replace('$', "$$")
}

fn variable(name: &str, value: impl Into<String>) -> Value {
    json!({ "name": name, "value": value.into() })
}

fn from_field(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
}

fn agent(wanted: &Wanted) -> Value {
    let (group, port) = (&wanted.group, port(wanted));
    let runtime = &group.runtime;
    let mut env = vec![
        variable("PORT", port.to_string()),
        variable("PILOTFISH_AGENT", plain(&group.agent)),
        variable("PILOTFISH_NAMESPACE", plain(&group.namespace)),
    ];
    let proxy = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"].map(|name| (name, OUTBOUND));
    let direct = ["NO_PROXY", "no_proxy"].map(|name| (name, LOOPBACK));
    let said = |name: &str| runtime.env.iter().any(|(key, _)| key == name);
    let unsaid = proxy.into_iter().chain(direct).filter(|(name, _)| !said(name));
    env.extend(unsaid.map(|(name, value)| variable(name, value)));
    let reserved = |key: &str| matches!(key, "PORT" | "PILOTFISH_AGENT" | "PILOTFISH_NAMESPACE");
    let further = runtime.env.iter().filter(|(key, _)| !reserved(key));
    env.extend(further.map(|(key, value)| variable(key, plain(value))));
    let mut agent = json!({
        "name": "agent",
        "image": runtime.image,
        "env": env,
        "ports": [{ "name": "http", "containerPort": port }],
        "resources": resources(wanted),
        "securityContext": {
            "runAsUser": AGENT_USER,
            "runAsGroup": AGENT_USER,
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
        },
        "lifecycle": { "preStop": { "sleep": { "seconds": LEAVING } } },
    });
    if !runtime.command.is_empty() {
        agent["command"] = runtime.command.iter().map(|word| plain(word)).collect();
    }
    if let Some(folder) = &runtime.working_dir {
        agent["workingDir"] = json!(folder);
    }
    if let Some(command) = runtime.probe.as_deref().and_then(|probe| probe.strip_prefix("exec:")) {
        let exec = json!({ "command": ["sh", "-c", plain(command)] });
        let start = runtime.start_timeout.map_or(60, |start| start.as_secs()).max(1);
        agent["startupProbe"] = json!({ "exec": exec, "periodSeconds": 1, "failureThreshold": start });
        agent["readinessProbe"] = json!({ "exec": exec });
    }
    agent
}

/// What is asked for is what it is held to, as on process nodes.
fn resources(wanted: &Wanted) -> Value {
    let Need { cpu_milli, memory, gpus, gpu_slice, .. } = &wanted.group.need;
    let off = |duty: &str| wanted.without.iter().any(|word| word == duty);
    let mut asked = Map::new();
    if *cpu_milli > 0 {
        asked.insert("cpu".into(), json!(format!("{cpu_milli}m")));
    }
    if *memory > 0 {
        asked.insert("memory".into(), json!(memory.to_string()));
    }
    let mut limits = if off("resource_optimization") { Map::new() } else { asked.clone() };
    if *gpus > 0 {
        limits.insert(CARD.into(), json!(gpus.to_string()));
    }
    if let Some(profile) = gpu_slice {
        limits.insert(format!("nvidia.com/mig-{profile}"), json!("1"));
    }
    let requests = if off("resource_allocation") { Map::new() } else { asked };
    let mut resources = Map::new();
    for (key, some) in [("limits", limits), ("requests", requests)] {
        if !some.is_empty() {
            resources.insert(key.into(), some.into());
        }
    }
    resources.into()
}

/// As in `deploy/kubernetes/agent-with-sidecar.yaml`.
fn sidecar(settings: &Settings, wanted: &Wanted) -> Value {
    let group = &wanted.group;
    let mut env = vec![
        variable("PILOTFISH_CONTROL", plain(&settings.control)),
        variable("PILOTFISH_TOKEN_FILE", "/etc/pilotfish/join/token"),
        variable("PILOTFISH_AGENT", plain(&group.agent)),
        variable("PILOTFISH_NAMESPACE", plain(&group.namespace)),
        from_field("POD_IP", "status.podIP"),
        from_field("POD_NAME", "metadata.name"),
        from_field("NODE_NAME", "spec.nodeName"),
        variable("PILOTFISH_ADVERTISE", "$(POD_IP):15006"),
        variable("PILOTFISH_APP", format!("127.0.0.1:{}", port(wanted))),
        variable("PILOTFISH_LABELS", labels(wanted)),
        variable("PILOTFISH_STATUS", "0.0.0.0:15020"),
        variable("PILOTFISH_STATE_DIR", "/var/lib/pilotfish-proxy/state"),
        variable("PILOTFISH_ADMIN_SOCKET", SOCKET),
        variable("PILOTFISH_DRAIN", format!("{DRAIN}s")),
        variable("PILOTFISH_DRAIN_DELAY", format!("{LEAVING}s")),
    ];
    if let Some(region) = &group.region {
        env.push(variable("PILOTFISH_LOCALITY", plain(region)));
    }
    // A command runs in the agent's container, where Kubernetes asks; the sidecar's image has no shell.
    if let Some(probe) = group.runtime.probe.as_deref().filter(|probe| !probe.starts_with("exec:")) {
        env.push(variable("PILOTFISH_PROBE", plain(probe)));
        env.push(variable("PILOTFISH_PROBE_INTERVAL", "2s"));
    }
    if wanted.capacity > 0 {
        env.push(variable("PILOTFISH_AGENT_CAPACITY", wanted.capacity.to_string()));
    }
    let asks = |path: &str| json!({ "path": path, "port": "status" });
    json!({
        "name": "pilotfish-proxy",
        "image": settings.proxy_image,
        // A native sidecar: it starts before the agent and ends after it.
        "restartPolicy": "Always",
        "env": env,
        "ports": [
            { "name": "mesh", "containerPort": 15006 },
            { "name": "status", "containerPort": 15020 },
        ],
        // The kubelet runs every container's hook first, and only then ends them in order.
        "lifecycle": { "preStop": { "exec": { "command": ["/usr/bin/pilotfish-proxy", "drain", SOCKET] } } },
        "startupProbe": { "httpGet": asks("/live"), "periodSeconds": 1, "failureThreshold": 30 },
        "livenessProbe": { "httpGet": asks("/live") },
        "readinessProbe": { "httpGet": asks("/ready"), "periodSeconds": 2 },
        "resources": { "requests": { "cpu": "50m", "memory": "32Mi" }, "limits": { "memory": "256Mi" } },
        "securityContext": {
            "runAsUser": SIDECAR_USER,
            "runAsGroup": SIDECAR_USER,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": [
            { "name": "join", "mountPath": "/etc/pilotfish/join", "readOnly": true },
            { "name": "state", "mountPath": "/var/lib/pilotfish-proxy" },
            { "name": "run", "mountPath": "/run/pilotfish-proxy" },
        ],
    })
}

/// What others choose by. A value with a comma cannot be said to a sidecar, and is left out.
fn labels(wanted: &Wanted) -> String {
    let group = &wanted.group;
    let mut labels: Vec<(String, String)> = vec![
        ("pilotfish.dev/cluster".into(), plain(&group.cluster)),
        ("pilotfish.dev/node".into(), "$(NODE_NAME)".into()),
        (
            "pilotfish.dev/replica".into(),
            format!("{}/{}/$(POD_NAME)", plain(&group.namespace), plain(&group.agent)),
        ),
        ("resource-type".into(), if group.need.gpu() { "gpu" } else { "cpu" }.into()),
    ];
    labels.extend(group.pool.iter().map(|pool| ("gpu-pool".into(), plain(pool))));
    labels.extend(group.region.iter().map(|region| ("region".into(), plain(region))));
    for (key, value) in &group.labels {
        if !labels.iter().any(|(known, _)| known == key) {
            labels.push((plain(key), plain(value)));
        }
    }
    let said = labels.iter().filter(|(key, value)| !key.contains([',', '=']) && !value.contains(','));
    said.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Even over zones and nodes, as far as that goes.
fn spread(object: &str) -> Value {
    [Topology::Zone, Topology::Node]
        .map(|level| {
            json!({
                "maxSkew": 1,
                "topologyKey": topology_key(level),
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": { "matchLabels": { DEPLOYMENT: object } },
            })
        })
        .into_iter()
        .collect()
}

fn topology_key(level: Topology) -> &'static str {
    match level {
        Topology::Node => "kubernetes.io/hostname",
        Topology::Zone => "topology.kubernetes.io/zone",
        Topology::Region => "topology.kubernetes.io/region",
    }
}

fn node_selector(wanted: &Wanted) -> Value {
    let group = &wanted.group;
    let mut labels: Map<String, Value> =
        group.node_selector.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    if let Some(pool) = &group.pool {
        // Which nodes are a pool's the cluster's administrator says, by this label.
        labels.insert("pilotfish.dev/gpu-pool".into(), json!(name::label(&pool.replace('/', "."))));
    }
    labels.into()
}

fn tolerations(wanted: &Wanted) -> Value {
    let mut all: Vec<Value> = wanted.group.tolerations.iter().map(toleration).collect();
    if wanted.group.need.gpu() {
        // Nodes with cards are commonly tainted with this.
        let card = json!({ "key": CARD, "operator": "Exists", "effect": "NoSchedule" });
        if !all.contains(&card) {
            all.push(card);
        }
    }
    all.into()
}

fn toleration(toleration: &Toleration) -> Value {
    let mut said = Map::new();
    if let Some(key) = &toleration.key {
        said.insert("key".into(), json!(key));
    }
    match (&toleration.key, &toleration.value) {
        (Some(_), Some(value)) => {
            said.insert("operator".into(), json!("Equal"));
            said.insert("value".into(), json!(value));
        }
        _ => {
            said.insert("operator".into(), json!("Exists"));
        }
    }
    if let Some(effect) = toleration.effect {
        let effect = match effect {
            TaintEffect::NoSchedule => "NoSchedule",
            TaintEffect::PreferNoSchedule => "PreferNoSchedule",
            TaintEffect::NoExecute => "NoExecute",
        };
        said.insert("effect".into(), json!(effect));
    }
    said.into()
}

fn affinity(settings: &Settings, wanted: &Wanted) -> Value {
    let group = &wanted.group;
    let mut affinity = Map::new();
    let mut nodes: Vec<Value> = Vec::new();
    if let Some(region) = &group.region {
        nodes.push(json!({ "key": topology_key(Topology::Region), "operator": "In", "values": [region] }));
    }
    if group.need.gpus > 0 && group.need.gpu_memory > 0 {
        // MiB, as NVIDIA's GPU feature discovery labels nodes.
        let more_than = group.need.gpu_memory.div_ceil(1 << 20).saturating_sub(1);
        nodes.push(
            json!({ "key": "nvidia.com/gpu.memory", "operator": "Gt", "values": [more_than.to_string()] }),
        );
    }
    if !nodes.is_empty() {
        let terms = json!({ "nodeSelectorTerms": [{ "matchExpressions": nodes }] });
        affinity.insert(
            "nodeAffinity".into(),
            json!({ "requiredDuringSchedulingIgnoredDuringExecution": terms }),
        );
    }
    for (key, rules) in [("podAffinity", &group.affinity), ("podAntiAffinity", &group.anti_affinity)] {
        let rules = pod_affinity(settings, &group.namespace, rules);
        if !rules.is_empty() {
            affinity.insert(key.into(), rules.into());
        }
    }
    affinity.into()
}

fn pod_affinity(settings: &Settings, namespace: &str, rules: &[AgentAffinity]) -> Map<String, Value> {
    let (mut required, mut preferred) = (Vec::new(), Vec::new());
    for rule in rules {
        let (space, agent) = rule.agent.split_once('/').unwrap_or((namespace, &rule.agent));
        let term = json!({
            "labelSelector": { "matchLabels": { AGENT: name::label(agent), NAMESPACE: name::label(space) } },
            "namespaces": [settings.namespace_of(space)],
            "topologyKey": topology_key(rule.topology),
        });
        match rule.required {
            true => required.push(term),
            false => preferred.push(json!({ "weight": 100, "podAffinityTerm": term })),
        }
    }
    let mut said = Map::new();
    for (key, terms) in [
        ("requiredDuringSchedulingIgnoredDuringExecution", required),
        ("preferredDuringSchedulingIgnoredDuringExecution", preferred),
    ] {
        if !terms.is_empty() {
            said.insert(key.into(), terms.into());
        }
    }
    said
}
