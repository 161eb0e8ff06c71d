//! A plan made of what a sidecar's scope sees is the plan made of everything.

use std::collections::BTreeMap;

use pilotfish_config::{Admitted, admit, load_documents, wire};

use super::*;
use crate::scope::{Scope, ScopeClass};

const NAMESPACES: [&str; 4] = ["default", "a", "b", "istio-system"];

/// Everything of a mesh: documents as the control plane keeps them, and who registered.
struct World {
    documents: Vec<Admitted>,
    endpoints: Vec<wire::Endpoint>,
    model: Model,
    options: Options,
}

impl World {
    fn new(yaml: &str, endpoints: Vec<wire::Endpoint>, options: Options) -> World {
        let (loaded, mut documents) = admit(&[("world.yaml", yaml)], &options);
        assert!(loaded.model.is_some(), "{}\n{yaml}", loaded.report);
        documents.sort_by(|a, b| a.key.cmp(&b.key));
        let pairs = documents.iter().map(|one| (one.source.as_str(), one.json.as_str()));
        let model = load_documents(pairs, &options).model.unwrap().with_endpoints(&endpoints);
        World { documents, endpoints, model, options }
    }

    fn seen(&self, scope: &Scope<'_>) -> Vec<&Admitted> {
        let key = |one: &Admitted| wire::Key {
            kind: one.key.kind.name().into(),
            namespace: one.key.namespace.to_string(),
            name: one.key.name.to_string(),
        };
        self.documents.iter().filter(|one| scope.sees_document(&key(one))).collect()
    }

    /// What the sidecar is sent.
    fn scoped(&self, scope: &Scope<'_>) -> Model {
        let pairs = self.seen(scope).into_iter().map(|one| (one.source.as_str(), one.json.as_str()));
        let loaded = load_documents(pairs, &self.options);
        let model = loaded.model.unwrap_or_else(|| panic!("{}", loaded.report));
        model.with_endpoints(self.endpoints.iter().filter(|endpoint| scope.sees_endpoint(endpoint)))
    }
}

fn of(namespace: &str, app: &str) -> CompileOptions {
    CompileOptions {
        namespace: namespace.to_owned(),
        agent: app.to_owned(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        trust_domain: Some("d".to_owned()),
        ..CompileOptions::default()
    }
}

fn same_for_everybody(world: &World, seed: u64) {
    for namespace in NAMESPACES {
        for app in ["x", "y"] {
            let options = of(namespace, app);
            let scope = Scope::new(&world.model, namespace, &options.labels);
            let (whole, own) = (plan_of(&world.model, &options), plan_of(&world.scoped(&scope), &options));
            let (whole_text, own_text) = (whole.describe(), own.describe());
            for part in
                ["virtual_hosts", "clusters", "catalogue", "outbound_policy", "dns_names", "rate_limits"]
            {
                let sorted = |text: &serde_json::Value| {
                    let mut all: Vec<String> =
                        text[part].as_array().into_iter().flatten().map(ToString::to_string).collect();
                    all.sort();
                    all
                };
                assert_eq!(sorted(&whole_text), sorted(&own_text), "seed {seed}, {namespace}/{app}: {part}");
            }
            assert_eq!(whole.inbound_mtls(80), own.inbound_mtls(80), "seed {seed}");
            for (a, b) in whole.clusters().iter().zip(own.clusters()) {
                assert_eq!(a.settings, b.settings, "seed {seed}: {}", a.name);
                let identities = |c: &crate::cluster::Cluster| -> Vec<_> {
                    c.endpoints().iter().map(|e| (e.identity.clone(), e.capabilities.clone())).collect()
                };
                assert_eq!(identities(a), identities(b), "seed {seed}: {}", a.name);
            }
        }
    }
}

fn one<'t>(rng: &mut fastrand::Rng, of: &[&'t str]) -> &'t str {
    of[rng.usize(..of.len())]
}

const EXACT: [&str; 5] = ["s1.example", "s2.example", "a.wide.example", "s3", "agent-1.a.svc.cluster.local"];
const FRONTS: [&str; 5] = ["front.example", "s1.example", "'*.wide.example'", "s3", "a.wide.example"];
const EXPORTS: [&str; 4] = ["", ", exportTo: ['*']", ", exportTo: ['.']", ", exportTo: [a]"];
const PORTS: &str = "ports: [{number: 80, name: http, protocol: HTTP}]";

/// The kind and spec of the document number `n`.
fn spec(rng: &mut fastrand::Rng, n: usize) -> (&'static str, String) {
    let (host, export, app) = (one(rng, &EXACT), one(rng, &EXPORTS), one(rng, &["x", "y"]));
    match rng.u8(..13) {
        0 => (
            "ServiceEntry",
            format!(
                "hosts: [{host}], resolution: STATIC, {PORTS}, endpoints: [{{address: 10.0.1.{n}, labels: {{version: v1, \
                 pilotfish.dev/agent: agent-1}}}}]{export}"
            ),
        ),
        1 => (
            "ServiceEntry",
            format!(
                "hosts: [{host}], resolution: STATIC, {PORTS}, workloadSelector: {{labels: {{app: {app}}}}}{export}"
            ),
        ),
        2 => {
            let wide = one(rng, &["'*.wide.example'", "localhost", "s2.example"]);
            ("ServiceEntry", format!("hosts: [{wide}], resolution: NONE, {PORTS}{export}"))
        }
        3..=5 => (
            "VirtualService",
            format!(
                "hosts: [{}], http: [{{name: r{n}, route: [{{destination: {{host: {host}, subset: v{}}}, weight: 3}}, \
                 {{destination: {{host: s3}}, weight: 1}}]}}]{export}",
                one(rng, &FRONTS),
                rng.u8(1..3)
            ),
        ),
        6 => (
            "DestinationRule",
            format!(
                "host: {}, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {}}}}}}}, subsets: [{{name: v{}, \
                 labels: {{version: v1}}}}]{export}",
                one(rng, &FRONTS),
                n + 1,
                rng.u8(1..3)
            ),
        ),
        7 => {
            let agent = one(rng, &["agent-1", "agent-2"]);
            (
                "WorkloadEntry",
                format!("address: 10.0.2.{n}, labels: {{app: {app}, pilotfish.dev/agent: {agent}}}"),
            )
        }
        8 => {
            let first = one(rng, &["*/*", "./*", "a/*", "*/s1.example", "~b/*", "b/*.wide.example"]);
            let more = ["./*", "~/*", "*/front.example", "~a/s1.example", "*/agent-1.a.svc.cluster.local"];
            let selector = one(rng, &["", ", workloadSelector: {labels: {app: x}}"]);
            ("Sidecar", format!("egress: [{{hosts: ['{first}', '{}']}}]{selector}", one(rng, &more)))
        }
        9 => (
            "PeerAuthentication",
            format!("mtls: {{mode: {}}}", one(rng, &["STRICT", "DISABLE", "PERMISSIVE"])),
        ),
        10 => (
            "AgentCluster",
            format!(
                "agents: [{{name: agent-1, capabilities: [nlu@1.{n}]}}, {{name: agent-2, capabilities: [search]}}]"
            ),
        ),
        11 => {
            let about = [
                "direction: inbound",
                "targets: [{host: s1.example}]",
                "targets: [{route: root1}, {capability: nlu}]",
            ];
            let selector = one(rng, &["", ", selector: {matchLabels: {app: x}}"]);
            ("RateLimit", format!("{}, limit: {{requests: {}}}{selector}", one(rng, &about), n + 1))
        }
        _ => {
            let of = one(rng, &NAMESPACES);
            let rule = format!("delegate: {{name: d, namespace: {of}}}");
            ("VirtualService", format!("hosts: [root{n}.example], http: [{{{rule}}}]{export}"))
        }
    }
}

fn document(rng: &mut fastrand::Rng, n: usize) -> String {
    let namespace = one(rng, &NAMESPACES);
    let (kind, spec) = spec(rng, n);
    let version = match kind {
        "PeerAuthentication" => "security.istio.io/v1",
        "AgentCluster" | "RateLimit" => "pilotfish.dev/v1",
        _ => "networking.istio.io/v1",
    };
    format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: n{n}, namespace: {namespace}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn registration(rng: &mut fastrand::Rng, n: u32) -> wire::Endpoint {
    let (agent, namespace) = (one(rng, &["agent-1", "agent-3"]), one(rng, &NAMESPACES));
    wire::Endpoint {
        capacity: 0,
        id: format!("{namespace}/{agent}/{n}"),
        agent: agent.to_owned(),
        namespace: namespace.to_owned(),
        trust_domain: None,
        address: ([10, 0, 3, n as u8], 15_006).into(),
        labels: BTreeMap::from([("app".to_owned(), one(rng, &["x", "y"]).to_owned())]),
        locality: None,
        weight: 1,
        capabilities: vec!["plan".to_owned()],
        status: wire::Status::Ready,
        dedup_epoch: None,
    }
}

#[test]
fn what_a_scope_leaves_out_changes_nothing() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut yaml: String = (0..rng.usize(1..30)).map(|n| document(&mut rng, n)).collect();
        for namespace in NAMESPACES {
            yaml.push_str(&format!(
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: d, namespace: {namespace}}}\n\
                 spec: {{http: [{{route: [{{destination: {{host: s1.example}}}}]}}]}}\n---\n"
            ));
        }
        let endpoints = (0..rng.u32(..8)).map(|n| registration(&mut rng, n)).collect();
        // The two additions look at all rules, so that rules of others can matter to them.
        let options = Options { strict_istio: true, ..Options::default() };
        same_for_everybody(&World::new(&yaml, endpoints, options), seed);
    }
}

#[test]
fn additions_of_rules_from_another_namespace_hold() {
    let yaml = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: a}\nspec: {hosts: \
                [front.example], http: [{route: [{destination: {host: s1.example, subset: v1}}]}]}\n---\n\
                apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: lent, namespace: a}\nspec: {host: \
                front.example, trafficPolicy: {loadBalancer: {simple: RANDOM}}, exportTo: ['.']}\n---\n\
                apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: s1, namespace: a}\nspec: {host: \
                s1.example, subsets: [{name: v1, labels: {version: one}}], exportTo: ['.']}\n---\n\
                apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s, namespace: b}\nspec: {hosts: \
                [s1.example], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: \
                10.0.0.1, labels: {version: v1}}]}\n";
    same_for_everybody(&World::new(yaml, Vec::new(), Options::default()), 0);
}

#[test]
fn others_private_and_security_documents_are_not_seen() {
    let peer = |namespace: &str, selector: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: {namespace}}}\n\
             spec: {{{selector}}}\n---\n"
        )
    };
    let yaml = peer("default", "")
        + &peer("a", "")
        + &peer("istio-system", "")
        + "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s, namespace: a}\nspec: {hosts: \
           [s1.example], exportTo: ['.'], ports: [{number: 80, name: http, protocol: HTTP}]}\n---\n\
           apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: a}\nspec: {hosts: \
           [s1.example], exportTo: [b], http: [{directResponse: {status: 200}}]}\n---\n\
           apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: c, namespace: a}\nspec: {egress: [{hosts: ['./*']}]}\n";
    let world = World::new(&yaml, Vec::new(), Options::default());
    let seen = |namespace: &str| -> Vec<String> {
        let scope = Scope::new(&world.model, namespace, &Default::default());
        world.seen(&scope).iter().map(|one| one.key.to_string()).collect()
    };
    let mesh = "PeerAuthentication istio-system/p".to_owned();
    assert_eq!(seen("default"), ["PeerAuthentication default/p".to_owned(), mesh.clone()]);
    assert_eq!(seen("b"), ["VirtualService a/v".to_owned(), mesh]);
    assert_eq!(seen("a").len(), 5);
}

#[test]
fn sidecars_of_one_class_see_the_same() {
    let yaml = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: own}\nspec: {workloadSelector: {labels: \
                {app: x}}, egress: [{hosts: ['./*']}]}\n---\n\
                apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: mesh, namespace: istio-system}\nspec: \
                {egress: [{hosts: ['~/*']}]}\n";
    let world = World::new(yaml, Vec::new(), Options::default());
    let class =
        |namespace: &str, app: &str| ScopeClass::of(&world.model, namespace, &of(namespace, app).labels);
    assert_ne!(class("default", "x"), class("default", "y"));
    assert_eq!(class("default", "y"), class("default", "z"));
    assert_ne!(class("default", "y"), class("a", "y"));
}

#[test]
fn egress_hosts_narrow_what_is_reached() {
    let yaml = service("near", 80)
        + &service("far", 80)
            .replace("metadata: {name: far}", "metadata: {name: far, namespace: a}")
            .replace("far.default", "far.a")
        + "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s}\nspec: {egress: [{hosts: [HOSTS]}]}\n";
    let known = |hosts: &str| {
        let plan = plan(&yaml.replace("HOSTS", hosts));
        [plan.knows("near.default.svc.cluster.local"), plan.knows("far.a.svc.cluster.local")]
    };
    assert_eq!(known("'*/*'"), [true, true]);
    assert_eq!(known("./*"), [true, false]);
    assert_eq!(known("a/*"), [false, true]);
    assert_eq!(known("'*/near.default.svc.cluster.local'"), [true, false]);
    assert_eq!(known("~/*"), [false, false]);
    assert_eq!(known("'*/*', ~a/*"), [true, false]);
    assert_eq!(known("./near"), [true, false]);
}
