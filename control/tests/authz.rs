//! Who may call whom: what `pilotfish authz` says is what sidecars do; `--default-deny`.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use pilotfish_testkit::sidecar::Sidecar;
use pilotfish_testkit::{Agent, h1};
use serde_json::Value;

use crate::mesh::{binary, pilotfish, sidecar};
use crate::support::{Http, Serve};

/// A change has to be served within this time; a busy machine needs most of it.
const SOON: Duration = Duration::from_secs(30);

const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers}
spec:
  selector: {matchLabels: {app: ledger}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/web]}}]
    to: [{operation: {methods: [GET], paths: ['/accounts/*']}}]
  - when: [{key: 'request.headers[x-team]', values: [billing]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: secrets}
spec:
  selector: {matchLabels: {app: ledger}}
  action: DENY
  rules:
  - to: [{operation: {paths: ['/accounts/secret*']}}]
";

/// Runs `pilotfish` without a control plane.
fn alone(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pilotfish")).args(args).env_remove("PILOTFISH_DATA").output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn apply(control: &Serve, name: &str, yaml: &str) {
    let file = control.folder().path().join(name);
    std::fs::write(&file, yaml).unwrap();
    pilotfish(control, &["apply", "-f", file.to_str().unwrap(), "--wait"]);
}

/// One call to the ledger: its status, until it is the one that is expected or there is no more time.
async fn call(caller: &Sidecar, head: &str, headers: &[&str], expected: Option<u16>) -> u16 {
    let (method, path) = head.split_once(' ').unwrap();
    let deadline = Instant::now() + SOON;
    loop {
        let lines = headers.iter().map(|line| format!("{line}\r\n")).collect::<String>();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: ledger\r\n{lines}content-length: 0\r\n\r\n");
        let answer = h1::H1::connect(caller.outbound).await.ask(request).await;
        let status = answer.map_or(0, |answer| answer.status());
        if expected.is_none_or(|expected| expected == status) || Instant::now() > deadline {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_is_explained_is_what_sidecars_decide() {
    let Some(binary) = binary() else { return };
    let control = Serve::start(&[]);
    let agent = Agent::start("ledger").await;
    let ledger = sidecar(&binary, &control, "ledger").app(agent.addr()).launch();
    let (web, other) =
        (sidecar(&binary, &control, "web").launch(), sidecar(&binary, &control, "other").launch());
    let (_ledger, web, other) = (ledger.ready().await, web.ready().await, other.ready().await);
    assert_eq!(call(&other, "GET /", &[], Some(200)).await, 200);
    apply(&control, "policies.yaml", POLICIES);
    assert_eq!(call(&other, "GET /", &[], Some(403)).await, 403);

    let cases: [(&str, &Sidecar, &str, &[&str]); 9] = [
        ("web", &web, "GET /accounts/7", &[]),
        ("web", &web, "POST /accounts/7", &[]),
        ("web", &web, "GET /accounts/secret", &[]),
        ("web", &web, "GET /accounts/x/../secret", &[]),
        ("web", &web, "GET /", &[]),
        ("web", &web, "GET /", &["x-team: billing"]),
        ("other", &other, "GET /accounts/7", &[]),
        ("other", &other, "PUT /accounts/7", &["x-team: billing"]),
        ("other", &other, "GET /accounts/secret", &["x-team: billing"]),
    ];
    let mut outcomes = Vec::new();
    for (from, caller, head, headers) in cases {
        let status = call(caller, head, headers, None).await;
        let (method, path) = head.split_once(' ').unwrap();
        let mut args = vec![
            "authz", "explain", "--from", from, "--to", "ledger", "-X", method, "--path", path, "-o", "json",
        ];
        headers.iter().for_each(|header| args.extend(["-H", header]));
        let output = Command::new(env!("CARGO_BIN_EXE_pilotfish"))
            .args(&args)
            .arg("--data")
            .arg(control.data())
            .output()
            .unwrap();
        let answer: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        assert_eq!(answer["allowed"], status == 200, "{from} {head} {headers:?}: {status}, yet {answer:#}");
        assert_eq!(output.status.code(), Some(if status == 200 { 0 } else { 1 }), "{head}");
        if status != 200 {
            assert_eq!(u64::from(status), answer["status"].as_u64().unwrap(), "{head}");
        }
        outcomes.push(status);
    }
    assert_eq!(outcomes, [200, 403, 403, 403, 403, 200, 403, 200, 403]);

    let matrix: Value =
        serde_json::from_str(&pilotfish(&control, &["authz", "matrix", "-o", "json"])).unwrap();
    assert_eq!(matrix["callers"], serde_json::json!(["default/ledger", "default/other", "default/web"]));
    assert_eq!(
        matrix["rows"],
        serde_json::json!([["some", "yes", "yes"], ["some", "yes", "yes"], ["some", "yes", "yes"]])
    );
    let of = |path: &str| pilotfish(&control, &["authz", "matrix", "--method", "GET", "--path", path]);
    assert!(of("/accounts/secret").contains("no"), "{}", of("/accounts/secret"));
    assert!(
        of("/accounts/7").lines().any(|line| line.starts_with("default/web") && line.contains("yes")),
        "{}",
        of("/accounts/7")
    );
    let missing = pilotfish(&control, &["authz", "explain", "--from", "wbe", "--to", "production/web"]);
    for part in [
        "no agent production/web is registered or declared (did you mean default/web?); it is taken to have no labels",
        "no agent default/wbe is registered or declared (did you mean default/web?)",
        "no policy is for this agent",
    ] {
        assert!(missing.contains(part), "{part} is not in:\n{missing}");
    }
    // A cell of the page's matrix, of the calls of one tool.
    let path = "/v1/authz/explain?from=default/web&to=default/ledger&tool=pay";
    let cell: Value = Http::socket(&control).await.get(path).await.ok();
    let advice = cell["advice"].as_str().unwrap();
    assert!(
        advice.contains("[\"POST\"]") && advice.contains("[\"/mcp\"]") && advice.contains("[\"pay\"]"),
        "{advice}"
    );
    pilotfish(&control, &["quarantine", "other"]);
    let held = pilotfish(&control, &["authz", "matrix"]);
    assert!(held.lines().any(|line| line.starts_with("default/other") && line.contains("held")), "{held}");
    pilotfish(&control, &["restrict", "web", "--to", "reading"]);
    let only = pilotfish(&control, &["authz", "matrix", "--from", "web", "--to", "*/web", "-o", "json"]);
    let only: Value = serde_json::from_str(&only).unwrap();
    assert_eq!(
        (&only["callers"], &only["rows"]),
        (&serde_json::json!(["default/web"]), &serde_json::json!([["some"]]))
    );
}

const TABLE: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers}
spec:
  selector: {matchLabels: {app: ledger}}
  rules:
  - from: [{source: {principals: ['*/sa/web']}}]
    to:
    - operation: {methods: [GET, HEAD], paths: ['/accounts/*']}
    - operation: {methods: [PATCH], hosts: [ledger], paths: ['/files/{*}/name']}
  - from: [{source: {serviceAccounts: [default/other], notIpBlocks: [10.0.0.0/8]}}]
    to: [{operation: {paths: ['/files/{**}'], notMethods: [DELETE]}}]
  - to: [{operation: {methods: [POST], paths: [/mcp]}}]
    when: [{key: pilotfish.mcp.tool, values: ['read_*']}]
  - when: [{key: 'request.headers[x-team]', values: [billing], notValues: ['ops*']}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: secrets}
spec:
  selector: {matchLabels: {app: ledger}}
  action: DENY
  rules:
  - to: [{operation: {paths: ['/accounts/secret*']}}]
  - when: [{key: pilotfish.mcp.tool, values: [read_keys]}]
";

/// A call that is sent and explained.
struct Case {
    from: &'static str,
    head: &'static str,
    headers: &'static [&'static str],
    body: &'static str,
}

const fn plain(from: &'static str, head: &'static str) -> Case {
    Case { from, head, headers: &[], body: "" }
}

const fn with(from: &'static str, head: &'static str, headers: &'static [&'static str]) -> Case {
    Case { from, head, headers, body: "" }
}

const fn rpc(from: &'static str, body: &'static str) -> Case {
    Case { from, head: "POST /mcp", headers: &["content-type: application/json"], body }
}

const CASES: [Case; 41] = [
    plain("web", "GET /accounts/7"),
    plain("other", "GET /accounts/7"),
    plain("web", "OPTIONS /accounts/7"),
    plain("web", "PUT /accounts/7"),
    plain("web", "GET /accounts/7?q=/accounts/secret"),
    plain("web", "GET //accounts/7"),
    plain("web", "GET /accounts//7"),
    plain("web", "GET //accounts//secret"),
    plain("web", "GET /x/../accounts/7"),
    plain("web", "GET /x/%2e%2e/accounts/7"),
    plain("web", "GET /accounts/x/%2E%2E/secret"),
    plain("web", "GET /accounts/./7"),
    plain("web", "GET /%61ccounts/7"),
    plain("web", "GET /accounts/%73ecret"),
    plain("web", "GET /accounts%2F7"),
    plain("web", "GET /accounts/%2fsecret"),
    plain("web", "GET /accounts/7;v=1"),
    plain("web", "GET /accounts/x/..;/secret"),
    plain("web", "GET /accounts\\7"),
    plain("web", "GET /accounts\\secret"),
    plain("web", "GET /ACCOUNTS/7"),
    plain("web", "GET /accounts/Secret"),
    plain("web", "GET /accounts/%00"),
    plain("web", "GET /accounts"),
    plain("web", "GET /"),
    plain("web", "PATCH /files/a/name"),
    plain("web", "PATCH /files/a/b/name"),
    plain("other", "PATCH /files/a/b/name"),
    plain("other", "GET //files/a"),
    plain("other", "DELETE /files/a"),
    plain("other", "GET /files/%2e%2e/accounts/7"),
    with("other", "GET /", &["x-team: billing"]),
    with("other", "GET /", &["x-team: BILLING"]),
    with("other", "GET /", &["x-team: billing", "x-team: ops-1"]),
    with("other", "GET /", &["x-team: billing,ops-1"]),
    with("other", "GET /accounts/secret", &["x-team: billing"]),
    rpc("web", r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file"}}"#),
    rpc("web", r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_keys"}}"#),
    rpc("web", r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"write_file"}}"#),
    rpc(
        "web",
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_a","name":"read_keys"}}"#,
    ),
    rpc("web", r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file"}}]"#),
];

/// Every call is sent, and explained: whether it is allowed, and the word and status of a refusal, have to be the same. The sidecars
/// run with different `--path-normalization`, which nobody tells the one who asks.
#[tokio::test]
async fn every_call_is_explained_as_it_is_decided() {
    let Some(binary) = binary() else { return };
    let control = Serve::start(&[]);
    let agent = Agent::start("ledger").await;
    let ledger = sidecar(&binary, &control, "ledger").app(agent.addr());
    let ledger = ledger.args(&["--path-normalization", "merge-slashes"]).launch();
    let web = sidecar(&binary, &control, "web").launch();
    let other = sidecar(&binary, &control, "other").args(&["--path-normalization", "none"]).launch();
    let (_ledger, web, other) = (ledger.ready().await, web.ready().await, other.ready().await);
    assert_eq!(call(&other, "GET /", &[], Some(200)).await, 200);
    apply(&control, "policies.yaml", TABLE);
    for caller in [&web, &other] {
        assert_eq!(call(caller, "GET /", &[], Some(403)).await, 403);
    }
    let (mut wrong, mut allowed) = (Vec::new(), 0);
    for Case { from, head, headers, body } in &CASES {
        let caller = if *from == "web" { &web } else { &other };
        let (method, path) = head.split_once(' ').unwrap();
        let lines = headers.iter().map(|line| format!("{line}\r\n")).collect::<String>();
        let request =
            format!("{head} HTTP/1.1\r\nhost: ledger\r\n{lines}content-length: {}\r\n\r\n{body}", body.len());
        let answer = h1::H1::connect(caller.outbound).await.ask(request).await.unwrap();
        let reason = answer.header("pilotfish-reason");
        let decided = (answer.status() == 200, answer.status(), reason);

        let full = format!("default/{from}");
        let mut args =
            vec!["authz", "explain", "--from", &full, "--to", "default/ledger", "--host", "ledger"];
        args.extend(["-X", method, "--path", path, "-o", "json"]);
        headers.iter().for_each(|header| args.extend(["-H", header]));
        if !body.is_empty() {
            args.extend(["--body", body]);
        }
        let output = Command::new(env!("CARGO_BIN_EXE_pilotfish"))
            .args(&args)
            .arg("--data")
            .arg(control.data())
            .output()
            .unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let status = said["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(200);
        let explained = (said["allowed"] == true, status, said["reason"].as_str().map(str::to_owned));
        allowed += usize::from(decided.0);
        if decided != explained {
            wrong.push(format!(
                "{from} {head} {headers:?} {body}: decided {decided:?}, explained {explained:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(allowed >= 12 && CASES.len() - allowed >= 12, "{allowed} of {} are allowed", CASES.len());
}

#[tokio::test]
async fn under_default_deny_nobody_calls_whom_no_policy_lets_in() {
    let Some(binary) = binary() else { return };
    let control = Serve::start(&["--default-deny"]);
    let agent = Agent::start("ledger").await;
    let ledger = sidecar(&binary, &control, "ledger").app(agent.addr()).launch();
    let web = sidecar(&binary, &control, "web").launch();
    let (_ledger, web) = (ledger.ready().await, web.ready().await);
    assert_eq!(call(&web, "GET /accounts/7", &[], Some(403)).await, 403);
    let status = pilotfish(&control, &["status"]);
    assert!(status.contains("default deny"), "{status}");

    // It cannot be taken away, nor replaced by what says something else.
    let denied = Command::new(env!("CARGO_BIN_EXE_pilotfish"))
        .args(["delete", "AuthorizationPolicy", "default-deny", "-n", "pilotfish-system", "--data"])
        .arg(control.data())
        .output()
        .unwrap();
    assert!(!denied.status.success() && text(&denied).contains("--default-deny"), "{}", text(&denied));
    let file = control.folder().path().join("all.yaml");
    let all = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: default-deny, namespace: pilotfish-system}\nspec: {rules: [{}]}\n";
    std::fs::write(&file, all).unwrap();
    let denied = Command::new(env!("CARGO_BIN_EXE_pilotfish"))
        .args(["apply", "-f", file.to_str().unwrap(), "--data"])
        .arg(control.data())
        .output()
        .unwrap();
    assert!(!denied.status.success() && text(&denied).contains("--default-deny"), "{}", text(&denied));
    assert_eq!(call(&web, "GET /accounts/7", &[], None).await, 403);

    // An ALLOW policy lets in whom it names; what is not named stays out.
    apply(&control, "policies.yaml", POLICIES);
    assert_eq!(call(&web, "GET /accounts/7", &[], Some(200)).await, 200);
    assert_eq!(call(&web, "GET /", &[], None).await, 403);
    let matrix = pilotfish(&control, &["authz", "matrix"]);
    assert!(matrix.contains("default deny"), "{matrix}");
}

#[test]
fn files_alone_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    let agents = "---\napiVersion: pilotfish.dev/v1\nkind: AgentCluster\nmetadata: {name: all}\nspec:\n  agents: [{name: ledger}, {name: web}, {name: other}]\n";
    std::fs::write(&file, format!("{POLICIES}{agents}")).unwrap();
    let path = file.to_str().unwrap();
    let explain =
        |more: &[&str]| alone(&[&["authz", "explain", "-f", path, "--to", "ledger"], more].concat());

    let allowed = explain(&["--from", "web", "--path", "/accounts/7"]);
    assert_eq!(allowed.status.code(), Some(0), "{}", text(&allowed));
    let expected = format!(
        "allowed: GET /accounts/7 of default/ledger, called by cluster.local/ns/default/agent/web\n\
         by default/readers rule 1 ({path}:2:1)\n\
         \n\
         POLICY           ACTION  RULE  SAYS\n\
         default/readers  ALLOW      1  matches ({path}:2:1)\n\
         default/secrets  DENY       -  no rule fits, rule 1 nearly\n\
         \n\
         default/secrets rule 1 does not match:\n  \
         path: it wants /accounts/secret*, and this is /accounts/7\n\n"
    );
    assert_eq!(text(&allowed), expected);

    let refused = explain(&["--from", "other", "--path", "/accounts/7", "-X", "POST"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused);
    for part in [
        "refused with 403 access-denied: POST /accounts/7 of default/ledger, called by cluster.local/ns/default/agent/other\n",
        "no rule of default/readers matches",
        "default/readers rule 2 does not match:\n  request.headers[x-team]: it wants billing, and the call has none that fits\n",
        "To allow it: add to an ALLOW policy for this agent the rule {from: [{source: {principals: [\"cluster.local/ns/default/agent/other\"]}}], \
         to: [{operation: {methods: [\"POST\"], paths: [\"/accounts/7\"]}}]}",
    ] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    let deny = folder.path().join("deny.yaml");
    std::fs::write(&deny, POLICIES.split("---").nth(1).unwrap()).unwrap();
    let only =
        text(&alone(&["authz", "explain", "-f", deny.to_str().unwrap(), "--to", "ledger", "--from", "web"]));
    assert!(only.contains("\nno ALLOW policy is for this agent, so every agent"), "{only}");

    // Of a call that does not say on what it needs a permission nobody is advised to give it on everything.
    let roles = folder.path().join("roles.yaml");
    let policy = "apiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: {name: p}\nspec:\n  authorization:\n    model: rbac\n    roles:\n    \
                  - {name: web, permissions: ['a:b'], resources: ['x/*']}\n";
    std::fs::write(&roles, policy).unwrap();
    let root =
        text(&alone(&["authz", "explain", "-f", roles.to_str().unwrap(), "--to", "ledger", "--from", "web"]));
    assert!(root.contains("To allow it: let the call say on what: `pilotfish.dev/resource`"), "{root}");

    // A path has all tools and models on it: the rule that is suggested names the one that was asked for.
    for (body, when) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay"}}"#,
            "when: [{key: pilotfish.mcp.tool, values: [\"pay\"]}]}",
        ),
        (r#"{"model":"big","messages":[]}"#, "when: [{key: pilotfish.model, values: [\"big\"]}]}"),
    ] {
        let told = text(&explain(&["--from", "other", "--path", "/v1/chat/completions", "--body", body]));
        assert!(told.contains(when), "{told}");
    }
    let denied = text(&explain(&["--from", "web", "--path", "/accounts/x/%2e%2e/secret"]));
    assert!(
        denied.contains("the path becomes /accounts/secret")
            && denied.contains("narrow rule 1 of default/secrets"),
        "{denied}"
    );

    // Tokens and chains count as far as they are described.
    let token = explain(&["--from", "other", "--token-claims", "{\"iss\":\"i\",\"sub\":\"s\"}"]);
    assert!(text(&token).contains("no RequestAuthentication is for default/ledger"), "{}", text(&token));
    for wrong in
        [&["--from", "a/b/c"][..], &["--token-claims", "[]"], &["--body", "no-such-file"], &["--label", "x"]]
    {
        assert_eq!(explain(wrong).status.code(), Some(2), "{wrong:?}");
    }

    let matrix = alone(&["authz", "matrix", "-f", path]);
    let expected = "CALLER          default/ledger  default/other  default/web\n\
                    default/ledger  some            yes            yes\n\
                    default/other   some            yes            yes\n\
                    default/web     some            yes            yes\n\
                    note: each caller acts for itself, with its certificate and without a token\n";
    assert_eq!(text(&matrix), expected);
    for (wrong, said) in [
        (["--to", "ledgr"], "no agent `ledgr` is registered or declared; did you mean ledger?"),
        (["--from", "prod/web"], "did you mean default/web?"),
        (["--from", "x*"], "no agent `x*` is registered or declared"),
        (
            ["-n", "prod"],
            "no agent of the namespace `prod` is registered or declared; there are agents in default",
        ),
    ] {
        let refused = alone(&[&["authz", "matrix", "-f", path], &wrong[..]].concat());
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!((refused.status.code(), told.contains(said)), (Some(1), true), "{wrong:?}: {told}");
    }
    let closed = text(&alone(&["authz", "matrix", "-f", path, "--default-deny", "-o", "json"]));
    let closed: Value = serde_json::from_str(&closed).unwrap();
    assert_eq!(closed["rows"][0], serde_json::json!(["some", "no", "no"]));
}
