//! The audit log of the real sidecar: one record for each decision and no secret in it, killed, restarted, on a full disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use pilotfish_audit::folder::stretches;
use pilotfish_audit::verify;
use pilotfish_config::wire::{AuditRecord, AuditWhat};
use pilotfish_testkit::{H1, Origin, Sidecar, h1};
use prost::Message as _;

use crate::support::{sidecar, wait_metric};

/// Refuses what begins with `/denied`, audits `/audited`, tries to refuse `/tried`.
const POLICIES: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no}
spec: {action: DENY, rules: [{to: [{operation: {paths: ["/denied*"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: watch}
spec: {action: AUDIT, rules: [{to: [{operation: {paths: ["/audited*"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: try, annotations: {"istio.io/dry-run": "true"}}
spec: {action: DENY, rules: [{to: [{operation: {paths: ["/tried*"]}}]}]}
"#;

/// A sidecar with a log, and its agent.
struct Audited {
    sidecar: Sidecar,
    folder: PathBuf,
    _agent: Origin,
}

impl Audited {
    async fn start(folder: &Path, yaml: &str, flags: &[&str]) -> Audited {
        let agent = Origin::plain().await;
        let sidecar = sidecar()
            .yaml("a.yaml", yaml)
            .app(agent.addr())
            .args(&["--audit-dir", folder.to_str().unwrap(), "--drain-delay", "0s"])
            .args(flags)
            .start();
        Audited { sidecar, folder: folder.to_owned(), _agent: agent }
    }

    async fn call(&self, path: &str) -> u16 {
        h1::get(self.sidecar.inbound, "tester", path, &[]).await.unwrap().status()
    }

    /// The decisions, once there are so many.
    async fn decisions(&self, count: usize) -> Vec<AuditRecord> {
        let is_one = |record: &AuditRecord| {
            matches!(record.what, AuditWhat::Decision | AuditWhat::Answer | AuditWhat::Access)
        };
        let all = wait(|| {
            Some(records(&self.folder)).filter(|all| all.iter().filter(|r| is_one(r)).count() >= count)
        });
        let found: Vec<AuditRecord> = all.await.into_iter().filter(is_one).collect();
        assert_eq!(found.len(), count, "{found:#?}");
        found
    }
}

/// What a look gives, once it gives something.
async fn wait<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1500 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not come to it within 30 s");
}

fn text(folder: &Path) -> String {
    let stretches = stretches(folder).unwrap_or_default();
    stretches.iter().map(|one| std::fs::read_to_string(&one.path).unwrap()).collect()
}

fn records(folder: &Path) -> Vec<AuditRecord> {
    text(folder).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn each_decision_has_one_record_and_no_secret_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let audited = Audited::start(folder.path(), POLICIES, &["--audit", "all"]).await;
    let mut caller = H1::connect(audited.sidecar.inbound).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = format!(
        "POST /v1/sk-proj-0123456789abcdef/pay?card=hunter2 HTTP/1.1\r\nhost: tester\r\nauthorization: Bearer hunter2\r\ncookie: \
         a=hunter2\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-01\r\ncontent-length: 7\r\n\r\nhunter2"
    );
    assert_eq!(caller.ask(request).await.unwrap().status(), 200);
    let long = "x".repeat(1000);
    assert_eq!(audited.call(&format!("/denied/{long}?key=hunter2")).await, 403);
    let found = audited.decisions(2).await;
    let [allowed, denied] = &found[..] else { panic!() };
    assert_eq!(
        (
            allowed.action.as_str(),
            allowed.outcome.as_str(),
            allowed.trace.as_str(),
            allowed.direction.as_str()
        ),
        ("POST /v1/REDACTED/pay", "allowed", trace, "inbound")
    );
    assert_eq!((allowed.agent.as_str(), allowed.caller.as_str()), ("default/tester", "127.0.0.1"));
    assert_eq!((denied.outcome.as_str(), denied.reason.as_str()), ("denied", "access-denied"));
    assert!(denied.policy.contains("no") && denied.action.len() <= 256, "{denied:?}");
    let text = text(folder.path());
    assert!(!text.contains("hunter2") && !text.contains("sk-proj"), "{text}");
    assert_eq!(verify(folder.path()).unwrap().findings, []);
}

#[tokio::test]
async fn by_default_what_is_refused_audited_or_tried_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let audited = Audited::start(folder.path(), POLICIES, &["--outbound-policy", "registry-only"]).await;
    for (path, status) in [("/", 200), ("/denied", 403), ("/audited", 200), ("/tried", 200), ("/other", 200)]
    {
        assert_eq!(audited.call(path).await, status, "{path}");
    }
    let proxied = "GET http://elsewhere.test/x?key=hunter2 HTTP/1.1\r\nhost: elsewhere.test\r\n\r\n";
    let answer = H1::connect(audited.sidecar.outbound).await.ask(proxied).await.unwrap();
    assert_eq!(answer.reason(), "egress-not-allowed");
    let found = audited.decisions(4).await;
    let told: Vec<(&str, &str, &str)> = found
        .iter()
        .map(|record| (record.direction.as_str(), record.action.as_str(), record.outcome.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("inbound", "GET /denied", "denied"),
            ("inbound", "GET /audited", "allowed"),
            ("inbound", "GET /tried", "would-deny"),
            ("outbound", "GET /x", "denied"),
        ]
    );
    assert!(found[2].policy.contains("try"), "{found:#?}");
}

#[tokio::test]
async fn off_is_off_unless_a_policy_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let audited = Audited::start(folder.path(), POLICIES, &["--audit", "off"]).await;
    let policy = "apiVersion: pilotfish.dev/v1\nkind: AgentSecurityPolicy\nmetadata: {name: p}\nspec: {monitoring: {audit_all_actions: true}}\n---\n";
    assert_eq!((audited.call("/denied").await, audited.call("/").await), (403, 200));
    audited.sidecar.rewrite("b.yaml", policy);
    wait_metric(&audited.sidecar, "pilotfish_config_accepted_total", 2).await;
    assert_eq!(audited.call("/after").await, 200);
    let last = audited.decisions(1).await.remove(0);
    assert_eq!((&*last.action, &*last.outcome), ("GET /after", "allowed"));
    assert!(!records(folder.path()).iter().any(|record| record.action == "GET /denied"));
}

#[tokio::test]
async fn a_killed_sidecar_goes_on_with_its_log_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    for (end, count) in [("kill", 3), ("term", 6), ("", 9)] {
        let mut audited = Audited::start(folder.path(), POLICIES, &[]).await;
        for _ in 0..3 {
            assert_eq!(audited.call("/denied").await, 403);
        }
        audited.decisions(count).await;
        if end == "term" {
            audited.sidecar.terminate();
            assert!(audited.sidecar.exit(Duration::from_secs(30)).await.unwrap().success());
        }
    }
    let starts: Vec<String> = records(folder.path())
        .into_iter()
        .filter(|record| record.what == AuditWhat::Start)
        .map(|record| record.detail)
        .collect();
    assert_eq!(starts.len(), 3, "{starts:?}");
    assert!(
        starts[1].contains("did not end in order") && starts[2].ends_with("ended in order"),
        "{starts:?}"
    );
    let report = verify(folder.path()).unwrap();
    assert_eq!((report.findings, report.agent.as_str()), (vec![], "default/tester"));
    // One byte.
    let path = &stretches(folder.path()).unwrap()[0].path;
    let text = std::fs::read_to_string(path).unwrap().replacen("denied", "Denied", 1);
    std::fs::write(path, text).unwrap();
    assert_eq!(verify(folder.path()).unwrap().findings.len(), 1);
}

/// Waits until the sidecar's log says so.
async fn said(sidecar: &Sidecar, what: &str) {
    wait(|| sidecar.stderr().iter().any(|line| line.contains(what)).then_some(())).await;
}

#[tokio::test]
async fn without_room_calls_go_on_or_are_refused_as_asked_and_nothing_is_lost_silently() {
    for required in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        // What takes the file's place stands for a full disk.
        let full = folder.path().join("000000000001.jsonl");
        std::fs::create_dir(&full).unwrap();
        let flags: &[&str] =
            if required { &["--audit", "all", "--audit-required"] } else { &["--audit", "all"] };
        let audited = Audited::start(folder.path(), POLICIES, flags).await;
        said(&audited.sidecar, "audit records cannot be kept").await;
        let answer = h1::get(audited.sidecar.inbound, "tester", "/", &[]).await.unwrap();
        let expected = if required { (503, "audit-unavailable") } else { (200, "") };
        let reason = if required { answer.reason() } else { String::new() };
        assert_eq!((answer.status(), reason.as_str()), expected);
        assert_eq!(audited.call("/denied").await, 403, "a refusal needs no record");
        // Room again.
        std::fs::remove_dir(full).unwrap();
        said(&audited.sidecar, "audit records can be kept again").await;
        assert_eq!(audited.call("/after").await, 200);
        let found = audited.decisions(3).await;
        let told: Vec<(&str, &str)> =
            found.iter().map(|record| (record.action.as_str(), record.outcome.as_str())).collect();
        let first = if required { "denied" } else { "allowed" };
        assert_eq!(told, [("GET /", first), ("GET /denied", "denied"), ("GET /after", "allowed")]);
        assert_eq!(verify(folder.path()).unwrap().findings, []);
    }
}

#[tokio::test]
async fn unusual_callers_are_told_of_once() {
    let folder = tempfile::tempdir().unwrap();
    let policy = "---\napiVersion: pilotfish.dev/v1\nkind: AgentSecurityPolicy\nmetadata: {name: p}\nspec: {monitoring: {alert_on_anomalies: true}}\n";
    let audited = Audited::start(folder.path(), &format!("{POLICIES}{policy}"), &[]).await;
    assert_eq!(audited.call("/").await, 200);
    for _ in 0..25 {
        assert_eq!(audited.call("/denied").await, 403);
    }
    audited.decisions(25).await;
    let unusual: Vec<AuditRecord> =
        records(folder.path()).into_iter().filter(|record| record.what == AuditWhat::Anomaly).collect();
    assert_eq!(unusual.len(), 1, "{unusual:?}");
    assert_eq!(
        (unusual[0].caller.as_str(), unusual[0].detail.as_str()),
        ("127.0.0.1", "10 refusals within a minute")
    );
    wait_metric(&audited.sidecar, "pilotfish_audit_anomalies_total", 1).await;
    said(&audited.sidecar, "unusual calls").await;
}

#[tokio::test]
async fn a_collector_gets_each_record_and_a_log_without_a_place_is_said() {
    let (collector, agent) = (Origin::plain().await, Origin::plain().await);
    let endpoint = format!("http://127.0.0.1:{}", collector.port());
    let flags = ["--otlp-endpoint", &endpoint, "--otlp-protocol", "http/protobuf"];
    let sidecar = sidecar().yaml("a.yaml", POLICIES).app(agent.addr()).args(&flags).start();
    assert!(
        sidecar
            .stderr()
            .iter()
            .any(|line| line.contains("audit records are kept in memory until they are sent"))
    );
    assert_eq!(h1::get(sidecar.inbound, "tester", "/denied?key=hunter2", &[]).await.unwrap().status(), 403);
    let records = || -> Vec<(String, String)> {
        let requests = collector.requests();
        let logs = requests.iter().filter(|request| request.target() == "/v1/logs");
        let logs = logs.filter_map(|request| ExportLogsServiceRequest::decode(&request.body[..]).ok());
        logs.flat_map(|logs| logs.resource_logs)
            .flat_map(|logs| logs.scope_logs)
            .flat_map(|logs| logs.log_records)
            .filter(|record| record.event_name == "pilotfish.audit")
            .map(|record| (record.severity_text.clone(), format!("{:?}", record.body)))
            .collect()
    };
    let found = wait(|| records().into_iter().find(|(_, body)| body.contains("GET /denied"))).await;
    assert!(
        found.0 == "WARN" && found.1.contains("access-denied") && !found.1.contains("hunter2"),
        "{found:?}"
    );
}
