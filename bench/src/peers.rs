//! The proxies: where their binaries are, and the configuration that each gets for a piece of work.

pub mod mesh;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::telemetry;

/// A proxy under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// No proxy: the client talks to the upstream.
    Direct,
    /// Ours, with ten rules.
    Pilotfish,
    /// Ours, with every policy of resilience on every rule.
    PilotfishPolicies,
    /// Ours, telling nothing of any call.
    PilotfishOff,
    /// Ours, with every call traced.
    PilotfishTraced,
    /// Ours, with nothing to decide about callers.
    PilotfishOpen,
    /// Ours, with a thousand rules about callers, and a record of each decision.
    PilotfishAudited,
    /// Ours, with [`BIG_TABLE`] rules and 1,000 endpoints.
    PilotfishBig,
    /// HAProxy.
    Haproxy,
    /// HAProxy, moving bodies inside the kernel.
    HaproxySplice,
    /// HAProxy with HTTP/2 between its two processes (mesh workload only).
    HaproxyH2,
    /// nginx.
    Nginx,
    /// A minimal proxy on pingora-proxy.
    Pingora,
    /// Envoy, without a sidecar's filters.
    Envoy,
    /// Envoy, with every call traced.
    EnvoyTraced,
    /// Our control plane.
    Control,
}

/// Rules of the small table.
pub const SMALL_TABLE: usize = 10;
/// Rules of the big table.
pub const BIG_TABLE: usize = 10_000;
/// Endpoints of the big table.
pub const BIG_RING: usize = 1_000;

/// What a proxy has to do.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The port to listen on.
    pub listen: u16,
    /// The upstream's ports.
    pub upstreams: Vec<u16>,
    /// HTTP/2 with prior knowledge on the listening side.
    pub h2c: bool,
    /// Choose the upstream by a consistent hash of `x-hash`.
    pub hash: bool,
    /// Pass small writes on at once.
    pub streams: bool,
    /// Rules of our own table.
    pub rules: usize,
    /// What our own rules say in `x-plan`.
    pub plan: u32,
    /// What ours runs with.
    pub mesh: Mesh,
    /// A collector takes spans.
    pub traced: bool,
}

/// What a sidecar of ours runs with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mesh {
    /// A table of rules, header edits, a hash.
    #[default]
    Table,
    /// The same and every policy of resilience on every rule.
    Policies,
    /// One rule with retries, a breaker for each endpoint, peak-EWMA.
    Careful,
    /// One rule that repeats whatever fails.
    Stubborn,
    /// Nothing outbound; inbound the number of calls at once follows the latency.
    Inbound,
}

const HAPROXY: &str = include_str!("../peers/haproxy/haproxy.cfg");
const NGINX: &str = include_str!("../peers/nginx/nginx.conf");
const ENVOY_TRACED: &str = include_str!("../peers/envoy/traced.yaml");
const ENVOY: &str = include_str!("../peers/envoy/envoy.yaml");
const MESH: &str = include_str!("../peers/pilotfish/mesh.yaml");
const RULE: &str = include_str!("../peers/pilotfish/rule.yaml");
const POLICIES: &str = include_str!("../peers/pilotfish/policies.yaml");
const RULE_POLICIES: &str = include_str!("../peers/pilotfish/rule-policies.yaml");
const RULE_FAULT: &str = include_str!("../peers/pilotfish/rule-fault.yaml");
const CAREFUL: &str = include_str!("../peers/pilotfish/careful.yaml");
const STUBBORN: &str = include_str!("../peers/pilotfish/stubborn.yaml");
const INBOUND: &str = include_str!("../peers/pilotfish/inbound.yaml");

fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    text
}

fn each(ports: &[u16], line: impl Fn(&u16) -> String) -> String {
    ports.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Our own YAML for `setup`.
pub fn mesh_yaml(setup: &Setup) -> String {
    let plan = setup.plan.to_string();
    let policies = setup.mesh == Mesh::Policies;
    let rule = |agent: usize| match (policies, agent) {
        (false, _) => RULE.to_owned(),
        // With a fault neither retries nor timeouts are applied, as in Istio: one rule of the ten has one.
        (true, 0) => [RULE, RULE_POLICIES, RULE_FAULT].concat(),
        (true, _) => [RULE, RULE_POLICIES].concat(),
    };
    let rules: Vec<_> = (0..setup.rules)
        .map(|agent| fill(rule(agent).trim_end(), &[("agent", &agent.to_string()), ("plan", &plan)]))
        .collect();
    let endpoints =
        each(&setup.upstreams, |p| format!("  - address: 127.0.0.1\n    ports:\n      http: {p}"));
    let template = match setup.mesh {
        Mesh::Table => MESH,
        Mesh::Policies => POLICIES,
        Mesh::Careful => CAREFUL,
        Mesh::Stubborn => STUBBORN,
        Mesh::Inbound => INBOUND,
    };
    fill(template, &[("endpoints", &endpoints), ("rules", &rules.join("\n"))])
}

impl Peer {
    /// All of them, in the order in which a round runs.
    pub const ALL: [Self; 16] = [
        Self::Direct,
        Self::Pilotfish,
        Self::PilotfishPolicies,
        Self::PilotfishOff,
        Self::PilotfishTraced,
        Self::PilotfishOpen,
        Self::PilotfishAudited,
        Self::PilotfishBig,
        Self::Haproxy,
        Self::HaproxySplice,
        Self::HaproxyH2,
        Self::Nginx,
        Self::Pingora,
        Self::Envoy,
        Self::EnvoyTraced,
        Self::Control,
    ];

    /// Whether it is a sidecar of ours, whatever it runs with.
    pub fn is_sidecar(self) -> bool {
        matches!(
            self,
            Self::Pilotfish
                | Self::PilotfishPolicies
                | Self::PilotfishOff
                | Self::PilotfishTraced
                | Self::PilotfishOpen
                | Self::PilotfishAudited
                | Self::PilotfishBig
        )
    }

    /// Its name in tables, files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Pilotfish => "pilotfish",
            Self::PilotfishPolicies => "pilotfish-policies",
            Self::PilotfishOff => "pilotfish-off",
            Self::PilotfishTraced => "pilotfish-traced",
            Self::PilotfishOpen => "pilotfish-open",
            Self::PilotfishAudited => "pilotfish-audited",
            Self::PilotfishBig => "pilotfish-10k",
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::HaproxyH2 => "haproxy-h2",
            Self::Nginx => "nginx",
            Self::Pingora => "pingora",
            Self::Envoy => "envoy",
            Self::EnvoyTraced => "envoy-traced",
            Self::Control => "pilotfish-control",
        }
    }

    /// Its binary: an environment variable, where `make build` and `make bench-deps` put it, or PATH.
    pub fn find(self) -> Option<PathBuf> {
        let (variable, built, names): (_, _, &[&str]) = match self {
            Self::Direct => return Some(PathBuf::new()),
            Self::Pilotfish
            | Self::PilotfishPolicies
            | Self::PilotfishOff
            | Self::PilotfishTraced
            | Self::PilotfishOpen
            | Self::PilotfishAudited
            | Self::PilotfishBig => ("PILOTFISH_PROXY", "target/release/pilotfish-proxy", &[]),
            Self::Control => ("PILOTFISH_CONTROL_BINARY", "target/release/pilotfish", &[]),
            Self::Haproxy | Self::HaproxySplice | Self::HaproxyH2 => ("HAPROXY", "", &["haproxy"]),
            Self::Nginx => ("NGINX", "", &["nginx"]),
            Self::Pingora => ("PINGORA", "target/bench/pingora/release/bench-pingora", &[]),
            Self::Envoy | Self::EnvoyTraced => ("ENVOY", "target/bench/envoy", &["envoy"]),
        };
        if let Some(path) = std::env::var_os(variable) {
            return Some(path.into());
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(built);
        if !built.is_empty() && root.is_file() {
            return root.canonicalize().ok();
        }
        names.iter().find_map(|name| on_path(name))
    }

    /// The first line of what it says about its version.
    pub fn version(self, binary: &Path) -> String {
        let flag = match self {
            Self::Direct => return String::new(),
            Self::Pingora => return "pingora-proxy 0.9".to_owned(),
            Self::Haproxy | Self::HaproxySplice | Self::HaproxyH2 | Self::Nginx => "-v",
            _ => "--version",
        };
        let Ok(said) = Command::new(binary).arg(flag).output() else { return "unknown".to_owned() };
        let text = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("unknown").trim();
        line.rsplit_once("version:").map_or(line, |(_, v)| v.trim()).to_owned()
    }

    /// Writes its configuration into `dir` and returns the command that starts it.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn prepare(self, binary: &Path, setup: &Setup, dir: &Path) -> io::Result<Vec<String>> {
        let listen = setup.listen.to_string();
        let file = |name: &str, text: String| -> io::Result<String> {
            let path = dir.join(name);
            fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let place = dir.display().to_string();
        let args: Vec<String> = match self {
            Self::Direct | Self::Control => return Ok(Vec::new()),
            ours if ours.is_sidecar() => {
                fs::create_dir_all(dir.join("conf"))?;
                let more = if self == Self::PilotfishOff { telemetry::OFF } else { "" };
                file("conf/mesh.yaml", mesh_yaml(setup) + more)?;
                let ports = match (setup.mesh, setup.upstreams.first()) {
                    (Mesh::Inbound, Some(agent)) => {
                        format!("--outbound 127.0.0.1:0 --inbound 127.0.0.1:{listen} --app 127.0.0.1:{agent}")
                    }
                    _ => format!("--outbound 127.0.0.1:{listen} --inbound 127.0.0.1:0"),
                };
                let flags = format!(
                    "--config {place}/conf --agent bench --namespace bench {ports} --admin 127.0.0.1:0 \
                     --admin-socket {place}/admin.sock --workers 1"
                );
                let telling = if setup.traced { telemetry::flags(self, setup.listen) } else { String::new() };
                flags.split(' ').chain(telling.split_whitespace()).map(str::to_owned).collect()
            }
            Self::Haproxy | Self::HaproxySplice | Self::HaproxyH2 => {
                let conf = file("haproxy.cfg", haproxy(setup, self == Self::HaproxySplice))?;
                vec!["-db".into(), "-f".into(), conf]
            }
            Self::Nginx => {
                let conf = file("nginx.conf", nginx(setup, &place))?;
                vec!["-p".into(), place.clone(), "-e".into(), format!("{place}/start.log"), "-c".into(), conf]
            }
            Self::Pingora => {
                let protocol = if setup.h2c { "h2c" } else { "plain" };
                [listen, protocol.to_owned()]
                    .into_iter()
                    .chain(setup.upstreams.iter().map(u16::to_string))
                    .collect()
            }
            _ => {
                let conf = file("envoy.yaml", envoy(setup, self == Self::EnvoyTraced))?;
                let flags = format!("-c {conf} --concurrency 1 --disable-hot-restart -l error");
                flags.split(' ').map(str::to_owned).collect()
            }
        };
        Ok([binary.display().to_string()].into_iter().chain(args).collect())
    }
}

fn haproxy(setup: &Setup, splice: bool) -> String {
    let mut options = Vec::new();
    if setup.streams {
        // Without it small writes of a chunked body wait for 40 to 200 ms.
        options.push("  option http-no-delay");
    }
    if splice {
        options.push("  option splice-request\n  option splice-response");
    }
    let mut servers = each(&setup.upstreams, |p| format!("  server s{p} 127.0.0.1:{p}"));
    if setup.hash {
        servers.insert_str(0, "  balance hdr(x-hash)\n  hash-type consistent\n");
    }
    let bind = if setup.h2c { "proto h2" } else { "" };
    let listen = setup.listen.to_string();
    fill(
        HAPROXY,
        &[("options", &options.join("\n")), ("servers", &servers), ("bind", bind), ("listen", &listen)],
    )
}

fn nginx(setup: &Setup, dir: &str) -> String {
    let mut servers = each(&setup.upstreams, |p| format!("    server 127.0.0.1:{p};"));
    if setup.hash {
        servers.insert_str(0, "    hash $http_x_hash consistent;\n");
    }
    let options = if setup.h2c { " http2" } else { "" };
    let listen = setup.listen.to_string();
    fill(NGINX, &[("servers", &servers), ("listen_options", options), ("listen", &listen), ("dir", dir)])
}

fn envoy(setup: &Setup, traced: bool) -> String {
    let endpoints = each(&setup.upstreams, |p| {
        format!(
            "        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {p} }} }} }}"
        )
    });
    let (policy, hash) = match setup.hash {
        true => ("RING_HASH", ", hash_policy: [{ header: { header_name: x-hash } }]"),
        false if setup.mesh == Mesh::Careful => ("LEAST_REQUEST", ""),
        false => ("ROUND_ROBIN", ""),
    };
    let (listen, collector) = (setup.listen.to_string(), telemetry::collector(setup.listen).to_string());
    fill(
        if traced { ENVOY_TRACED } else { ENVOY },
        &[
            ("endpoints", &endpoints),
            ("lb_policy", policy),
            ("hash_policy", hash),
            ("listen", &listen),
            ("collector", &collector),
        ],
    )
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_filled_completely() {
        for hash in [false, true] {
            let setup = Setup {
                listen: 1,
                upstreams: vec![2, 3],
                h2c: hash,
                hash,
                streams: hash,
                rules: 12,
                plan: 4,
                mesh: Mesh::Table,
                traced: false,
            };
            for text in [haproxy(&setup, hash), nginx(&setup, "/d"), envoy(&setup, hash), mesh_yaml(&setup)] {
                let code: Vec<_> = text.lines().filter(|l| !l.trim_start().starts_with('#')).collect();
                assert!(!code.iter().any(|l| l.contains("{{")), "{text}");
            }
            let yaml = mesh_yaml(&setup);
            assert_eq!(yaml.matches("prefix: /agents/").count(), 12);
            assert_eq!(yaml.matches("x-plan: \"4\"").count(), 12);
            assert_eq!(yaml.matches("http: 3\n").count(), 1);
        }
    }
}
