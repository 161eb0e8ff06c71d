//! `get`, `status`, `agents`, `explain`, `trust`, `token`, `backup` and the rest.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use pilotfish_config::wire::node::Usage;
use pilotfish_config::wire::{Key, RefusedVersion, Status};
use pilotfish_control::api::types::{
    AgentRow, Agents, Explanation, FleetStatus, Held, Hold, Resource, Root, SidecarStatus, Token, TrustStatus,
};
use serde_json::json;
use serde_json::value::RawValue;

use super::changing::sidecar;
use super::scripted::{Scripted, bytes, ok, refused};

fn resource(kind: &str, namespace: &str, name: &str, spec: serde_json::Value) -> Resource {
    let body = json!({"kind": kind, "metadata": {"name": name}, "spec": spec});
    Resource {
        key: Key { kind: kind.into(), namespace: namespace.into(), name: name.into() },
        version: 7,
        source: "a.yaml:1".into(),
        body: RawValue::from_string(body.to_string()).unwrap(),
        yaml: format!("kind: {kind}\nmetadata:\n  name: {name}\n"),
    }
}

fn stored() -> Scripted {
    Scripted::on_socket(|asked| {
        let all = [
            resource(
                "VirtualService",
                "production",
                "web",
                json!({"hosts": ["web", "w2"], "http": [1, 2, 3]}),
            ),
            resource("VirtualService", "production", "chat", json!({"hosts": ["chat"]})),
            resource(
                "DestinationRule",
                "production",
                "chat",
                json!({"host": "chat", "subsets": [{"name": "v1"}, {"name": "v2"}]}),
            ),
            resource("DestinationRule", "default", "x", json!({"host": "x"})),
        ];
        let query = asked.line.strip_prefix("GET /v1/resources")?;
        let has = |name: &str, value: &str| {
            !query.contains(&format!("{name}=")) || query.contains(&format!("{name}={value}"))
        };
        let found = all.into_iter().filter(|r| {
            has("kind", &r.key.kind) && has("namespace", &r.key.namespace) && has("name", &r.key.name)
        });
        Some(ok(&found.collect::<Vec<_>>()))
    })
}

#[test]
fn get_prints_tables() {
    let control = stored();
    control
        .run(&["get", "vs", "-n", "production"])
        .says("NAME  HOSTS   RULES  VERSION\nchat  chat        0        7\nweb   web,w2      3        7\n");
    control.run(&["get", "all", "-A", "-o", "wide"]).says(
        "NAMESPACE   NAME                  HOST  SUBSETS  VERSION  SOURCE\n\
         default     destinationrule/x     x     -              7  a.yaml:1\n\
         production  destinationrule/chat  chat  v1,v2          7  a.yaml:1\n\n\
         NAMESPACE   NAME                 HOSTS   RULES  VERSION  SOURCE\n\
         production  virtualservice/chat  chat        0        7  a.yaml:1\n\
         production  virtualservice/web   web,w2      3        7  a.yaml:1\n",
    );
    control
        .run(&["get", "dr,vs", "chat", "-n", "production", "-o", "name"])
        .says("destinationrule/chat\nvirtualservice/chat\n");
}

#[test]
fn get_prints_documents() {
    let control = stored();
    control.run(&["get", "vs", "-n", "production", "-o", "yaml"]).says(
        "kind: VirtualService\nmetadata:\n  name: chat\n---\nkind: VirtualService\nmetadata:\n  name: web\n",
    );
    control.run(&["get", "vs/chat", "-n", "production", "-o", "json"]).says(
        "{\n  \"kind\": \"VirtualService\",\n  \"metadata\": {\n    \"name\": \"chat\"\n  },\n  \"spec\": {\n    \"hosts\": [\n      \"chat\"\n    ]\n  }\n}\n",
    );
    let ran = control.run(&["get", "vs", "-n", "production", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("List"), 2));
}

#[test]
fn get_says_what_is_not_there() {
    let control = stored();
    let ran = control.run(&["get", "vs"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""));
    assert_eq!(ran.err, "there are no VirtualService documents in the namespace default; -A looks in all\n");
    control
        .run(&["get", "vs", "none", "-n", "production"])
        .fails(1, &["pilotfish get: there is no VirtualService `none` in the namespace production"]);
    control.run(&["get", "pods"]).fails(2, &["invalid value 'pods'", "virtualservice", "all"]);
    control.run(&["get", "vs", "-n", "a", "-A"]).fails(2, &["cannot be used with"]);
}

fn fleet() -> FleetStatus {
    let refused =
        RefusedVersion { version: 7, reasons: vec!["a.yaml:12:9: error: no \x1b[31msubset".into()] };
    let web = SidecarStatus { accepted: 6, serving: 6, refused: Some(refused), ..sidecar("web") };
    let slow = SidecarStatus {
        namespace: "staging".into(),
        status: Status::Degraded,
        detail: Some("probe: 500".into()),
        certificate_expires: None,
        ..sidecar("slow")
    };
    let away = SidecarStatus { namespace: "staging".into(), connected: false, ..sidecar("z") };
    FleetStatus {
        documents: 7,
        version: 19,
        default_deny: false,
        actions: vec![],
        sidecars: vec![sidecar("chat"), web, slow, away],
    }
}

#[test]
fn status_is_a_table_with_remarks() {
    let control = Scripted::on_socket(|asked| (asked.line == "GET /v1/status").then(|| ok(&fleet())));
    control.run(&["status"]).says(
        "AGENT  NAMESPACE   STATUS    RENDERED  DISTRIBUTED  ACCEPTED  SERVING  CONTACT    CERTIFICATE\n\
         chat   production  ready            7            7         7        7  3 min ago  in 21 h\n\
         web    production  ready            7            7         6        6  3 min ago  in 21 h\n\
         slow   staging     degraded         7            7         7        7  3 min ago  -\n\
         z      staging     away             7            7         7        7  3 min ago  in 21 h\n\n\
         production/web refused version 7:\n  a.yaml:12:9: error: no \\u001b[31msubset\n\
         staging/slow is degraded: probe: 500\n\n\
         4 sidecars, documents version 7, 1 behind\n",
    );
    let ran = control.run(&["status", "-n", "staging", "-o", "json"]);
    let status: FleetStatus = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((status.documents, status.sidecars.len()), (7, 2));
    let ran = control.run(&["status", "-n", "staging", "-o", "yaml"]);
    assert!(ran.out.starts_with("documents: 7\nversion: 19\nsidecars:\n"), "{}", ran.out);
    control.run(&["status", "-n", "none"]).says("0 sidecars, documents version 7\n");
    let ran = control.run(&["status", "-o", "wide"]);
    assert!(ran.out.lines().nth(1).unwrap().ends_with("01234567  10.0.0.7:15006  0.1.0"), "{}", ran.out);
}

fn row(agent: &str, rank: Option<usize>) -> AgentRow {
    AgentRow {
        agent: agent.into(),
        namespace: "production".into(),
        instance: "0123456789abcdef".into(),
        address: "10.0.0.7:15006".into(),
        locality: "eu/1".into(),
        capabilities: vec!["nlu@1.2".into(), "chat".into()],
        labels: BTreeMap::from([("tier".into(), "gold".into())]),
        status: Status::Ready,
        latency_us: Some(42_000),
        success: Some(0.992),
        in_flight: 3,
        rank,
        usage: Some(Usage { cpu_milli: 250, memory: 20 << 20, ..Usage::default() }),
        why_not: rank.is_none().then(|| "latency 42 ms is not < 10 ms".to_owned()),
        health: None,
    }
}

#[test]
fn agents_are_ranked_and_the_others_have_reasons() {
    let control = Scripted::on_socket(|asked| match asked.line.as_str() {
        "GET /v1/agents?capability=nlu&constraint=latency%3C10ms%2C%20region%3Deu" => {
            let new = AgentRow { latency_us: None, success: None, in_flight: 0, ..row("nlu-b", Some(2)) };
            Some(ok(&Agents {
                agents: vec![row("nlu-a", Some(1)), new],
                others: vec![row("nlu-c", None)],
                actions: vec![],
            }))
        }
        "GET /v1/agents?constraint=bad" => Some(refused(400, "`bad` is no constraint", &[])),
        "GET /v1/agents" => Some(ok(&Agents { agents: vec![], others: vec![], actions: vec![] })),
        _ => None,
    });
    control.run(&["agents", "--capability", "nlu", "--constraint", "latency<10ms, region=eu"]).says(
        "RANK  AGENT  NAMESPACE   STATUS  CAPABILITIES  LATENCY  SUCCESS  IN-FLIGHT\n\
         \x20  1  nlu-a  production  ready   nlu@1.2,chat    42 ms   99.2 %          3\n\
         \x20  2  nlu-b  production  ready   nlu@1.2,chat        -        -          0\n\n\
         AGENT  NAMESPACE   STATUS  WHY NOT\n\
         nlu-c  production  ready   latency 42 ms is not < 10 ms\n",
    );
    let wide = control.run(&[
        "agents",
        "--capability",
        "nlu",
        "--constraint",
        "latency<10ms, region=eu",
        "-o",
        "wide",
    ]);
    assert!(
        wide.out.contains("  CPU  MEMORY  ADDRESS") && wide.out.contains(" 0.25  20 MiB  10.0.0.7"),
        "{}",
        wide.out
    );
    control.run(&["agents", "--constraint", "bad"]).fails(1, &["pilotfish agents: `bad` is no constraint"]);
    assert_eq!(control.run(&["agents"]).err, "no agent is registered\n");
}

#[test]
fn explain_asks_for_a_request_and_sends_none() {
    let answer = Explanation {
        lines: vec!["host chat: VirtualService production/chat".into(), "rule 2: header x-user".into()],
        rule: Some("2".into()),
        cluster: Some("chat".into()),
        candidates: vec![("10.0.0.7:15006".into(), "ready, the cheapest".into())],
        refused: None,
    };
    let control = Scripted::on_socket(move |asked| {
        let word = (asked.body["url"] == "http://none/").then(|| "no-route".to_owned());
        (asked.line == "POST /v1/explain").then(|| ok(&Explanation { refused: word, ..answer.clone() }))
    });
    let ran = control.run(&[
        "explain",
        "--from",
        "production/web",
        "-H",
        "X-User: anna",
        "-d",
        "{}",
        "http://chat/",
    ]);
    ran.says(
        "host chat: VirtualService production/chat\nrule 2: header x-user\n\n\
         CANDIDATE       WHY\n10.0.0.7:15006  ready, the cheapest\n",
    );
    let expected = json!({"agent": "web", "namespace": "production", "method": "POST", "url": "http://chat/",
        "headers": [["x-user", "anna"]], "body": "{}"});
    assert_eq!(control.asked()[0].body, expected);
    let ran = control.run(&["explain", "http://none/"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("refused: no-route\n"), "{}", ran.out);
    control.run(&["explain", "-H", "nonsense", "x"]).fails(2, &["NAME: VALUE"]);
    control.run(&["explain", "--from", "a/b/c", "x"]).fails(2, &["NAMESPACE/AGENT"]);
}

fn root(domain: &str, digit: &str) -> Root {
    let expires = pilotfish_control::cli::human::now() + 100 * 86_400 + 3600;
    Root { trust_domain: domain.into(), subject: "CN=root".into(), fingerprint: digit.repeat(64), expires }
}

#[test]
fn trust_lists_whole_fingerprints_and_takes_no_key() {
    let control = Scripted::on_socket(|asked| {
        let path = asked.line.split_once(' ')?.1;
        let removed = format!("/v1/trust/roots/{}", "ab".repeat(32));
        ["/v1/trust", "/v1/trust/roots", &removed].contains(&path).then(|| {
            ok(&TrustStatus {
                trust_domain: "mesh.test".into(),
                roots: vec![root("mesh.test", "a")],
                federated: vec![root("other.test", "c")],
                issuer: root("mesh.test", "b"),
                revoked: vec!["spiffe://mesh.test/ns/p/agent/x".into()],
            })
        })
    });
    let (a, b, c) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
    let table = format!(
        "ROLE       TRUST-DOMAIN  EXPIRES   SUBJECT  FINGERPRINT\n\
         root       mesh.test     in 100 d  CN=root  {a}\n\
         issuer     mesh.test     in 100 d  CN=root  {b}\n\
         federated  other.test    in 100 d  CN=root  {c}\n\
         revoked: spiffe://mesh.test/ns/p/agent/x\n"
    );
    control.run(&["trust", "list"]).says(&table);
    let openssl = format!("SHA256 Fingerprint={}", ["AB"; 32].join(":"));
    control.run(&["trust", "remove", &openssl]).says(&table);
    control.run(&["trust", "remove", "abc"]).fails(2, &["64 hexadecimal digits"]);
    let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    let file = control.file("root.pem", pem);
    control.run(&["trust", "add", &file]).says(&table);
    assert_eq!(control.asked().pop().unwrap().body, json!({"pem": pem}));
    let both = control.file("both.pem", &format!("{pem}-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n"));
    let ran = control.run(&["trust", "add", &both]);
    ran.fails(2, &["holds a private key"]);
    assert!(!ran.err.contains("c2VjcmV0"));
}

#[test]
fn a_token_is_alone_on_standard_output() {
    let control = Scripted::on_socket(|asked| {
        let expires = pilotfish_control::cli::human::now() + 3650;
        (asked.line == "POST /v1/tokens").then(|| ok(&Token { token: "pft_secret".into(), expires }))
    });
    let ran =
        control.run(&["token", "create", "--agent", "chat", "--namespace", "production", "--ttl", "2d"]);
    ran.says("pft_secret\n");
    assert!(!ran.err.contains("pft_secret"), "{}", ran.err);
    assert!(ran.err.starts_with("For production/chat, once, until 20"), "{}", ran.err);
    let hint = "pilotfish-proxy --control https://HOST:15012 --token-file FILE --agent chat --namespace production --app";
    assert!(ran.err.contains(hint), "{}", ran.err);
    let wanted =
        json!({"agent": "chat", "namespace": "production", "node": false, "ttl_seconds": 172_800, "uses": 1});
    assert_eq!(control.asked()[0].body, wanted);
    for ttl in ["0", "31d", "x"] {
        control.run(&["token", "create", "--agent", "a", "-n", "b", "--ttl", ttl]).fails(2, &["--ttl"]);
    }
}

#[test]
fn members_and_the_page() {
    let control = Scripted::on_socket(|asked| match asked.line.as_str() {
        "POST /v1/revoke" => Some(ok(&json!({"message": "production/chat is revoked"}))),
        "POST /v1/readmit" => Some(refused(404, "production/chat is not revoked", &[])),
        "POST /v1/ui" => Some(ok(&json!({"url": "http://127.0.0.1:15014/open/x"}))),
        _ => None,
    });
    control.run(&["revoke", "chat", "-n", "production"]).says("production/chat is revoked\n");
    assert_eq!(control.asked()[0].body, json!({"agent": "chat", "namespace": "production", "node": false}));
    control.run(&["readmit", "chat", "-n", "production"]).fails(1, &["is not revoked"]);
    control.run(&["revoke", "chat"]).says("production/chat is revoked\n");
    assert_eq!(control.asked().pop().unwrap().body["namespace"], "default");
    control.run(&["ui"]).says("http://127.0.0.1:15014/open/x\n");
}

#[test]
fn a_backup_is_whole_or_not_there() {
    let broken = std::sync::atomic::AtomicBool::new(false);
    let control = Scripted::on_socket(move |asked| {
        let answer = bytes(200, vec![7; 2048]);
        let whole = !broken.fetch_xor(asked.line == "POST /v1/backup", std::sync::atomic::Ordering::Relaxed);
        (asked.line == "POST /v1/backup").then(|| if whole { answer } else { answer.broken() })
    });
    let file = control.dir.path().join("mesh.backup");
    let name = file.display().to_string();
    let ran = control.run(&["backup", &name]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), format!("{name}: 2 KiB\n").as_str()));
    assert_eq!(std::fs::read(&file).unwrap(), [7; 2048]);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    control.run(&["backup", &name]).fails(1, &["is there already; --force replaces it"]);
    std::fs::write(&file, "older").unwrap();
    control.run(&["backup", &name, "--force"]).fails(4, &["the backup broke off"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"older");
    let left = std::fs::read_dir(control.dir.path()).unwrap().count();
    assert_eq!(left, 2, "the socket and the older backup");
}

#[test]
fn who_is_held_is_said_and_shown() {
    let control = Scripted::on_socket(|asked| match (asked.line.as_str(), asked.body["agent"].as_str()) {
        ("POST /v1/actions", Some("production/chatt")) => {
            Some(refused(404, "no agent production/chatt is registered; did you mean production/chat?", &[]))
        }
        ("POST /v1/actions", _) => {
            Some(ok(&json!({"message": "done\n`pilotfish release production/chat` undoes it"})))
        }
        ("GET /v1/status", _) => {
            let held = |agent: &str, hold| Held {
                agent: agent.into(),
                hold,
                until: None,
                since: 0,
                by: "admin".into(),
                why: "odd \u{1b}[31m calls".into(),
            };
            let restricted = Hold::Restrict(vec!["nlu".into(), "ocr".into()]);
            let actions = vec![held("production/chat", Hold::Quarantine), held("production/web", restricted)];
            let sidecars = vec![sidecar("chat"), sidecar("web")];
            Some(ok(&FleetStatus { documents: 7, version: 19, default_deny: false, actions, sidecars }))
        }
        _ => None,
    });
    let said = "done\n`pilotfish release production/chat` undoes it\n";
    control.run(&["quarantine", "chat", "-n", "production", "--for", "10m", "--why", "odd"]).says(said);
    let wanted = json!({"agent": "production/chat", "hold": "quarantine", "for_seconds": 600, "why": "odd", "force": false});
    assert_eq!(control.asked()[0].body, wanted);
    control.run(&["restrict", "production/chat", "--to", "nlu,ocr", "--force"]).says(said);
    let wanted = json!({"agent": "production/chat", "hold": {"restrict": ["nlu", "ocr"]}, "force": true});
    assert_eq!(control.asked()[1].body, wanted);
    control.run(&["release", "production/chat"]).says(said);
    assert_eq!(control.asked()[2].body, json!({"agent": "production/chat", "force": false}));
    control.run(&["quarantine", "production/chatt"]).fails(1, &["did you mean production/chat?"]);
    control.run(&["restrict", "chat"]).fails(2, &["--to"]);
    control.run(&["quarantine", "chat", "--for", "10ms"]).fails(2, &["--for"]);
    control.run(&["status"]).says(
        "AGENT  NAMESPACE   STATUS       RENDERED  DISTRIBUTED  ACCEPTED  SERVING  CONTACT    CERTIFICATE\n\
         chat   production  quarantined         7            7         7        7  3 min ago  in 21 h\n\
         web    production  restricted          7            7         7        7  3 min ago  in 21 h\n\n\
         production/chat is quarantined, until somebody releases it, by admin: odd \\u001b[31m calls\n\
         production/web is restricted to nlu, ocr, until somebody releases it, by admin: odd \\u001b[31m calls\n\n\
         2 sidecars, documents version 7\n",
    );
}
