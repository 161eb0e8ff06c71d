//! Keys, bearer tokens and passwords from files.

use std::os::unix::fs::PermissionsExt;

use pilotfish_testkit::Origin;

use super::{Safe, admin, credential, get, said, state, until};
use crate::support::{metric, service, sidecar};

#[tokio::test]
async fn each_kind_is_shown_in_its_place_and_replaces_what_the_agent_sent() {
    let mut safe = Safe::new();
    let key = safe.put("key", "k3y-0f-th3-test%&");
    let password = safe.put("password", "p4ssw0rd-0f-test");
    let basic = format!("Basic {}", data_encoding::BASE64.encode(b"ann:p4ssw0rd-0f-test"));
    safe.secrets.push(basic.clone());
    let user = safe.path("user");
    std::fs::write(&user, " ann \n").unwrap();
    let user = user.to_str().unwrap();
    // The spec, the agent's header, the target that is asked for; the header and the target that the host gets.
    let rows = [
        (
            format!("apiKey: {{file: {key}}}"),
            "x-api-key: agents",
            "/",
            ("x-api-key", "k3y-0f-th3-test%&"),
            "/",
        ),
        (
            format!("apiKey: {{header: Authorization, prefix: \"Key \", file: {key}}}"),
            "AUTHORIZATION: Bearer agents\r\nauthorization: Basic agents",
            "/a?b=c",
            ("authorization", "Key k3y-0f-th3-test%&"),
            "/a?b=c",
        ),
        (
            format!("apiKey: {{query: key, file: {key}}}"),
            "x-other: 1",
            "/a?key=agents&b=c&%6bey=agents",
            ("x-other", "1"),
            "/a?b=c&key=k3y-0f-th3-test%25%26",
        ),
        (format!("bearer: {{file: {key}}}"), "a: b", "/", ("authorization", "Bearer k3y-0f-th3-test%&"), "/"),
        (
            format!("basic: {{username: ann, passwordFile: {password}}}"),
            "authorization: Bearer agents",
            "/",
            ("authorization", &basic),
            "/",
        ),
        (
            format!("basic: {{usernameFile: {user}, passwordFile: {password}}}"),
            "a: b",
            "/",
            ("authorization", &basic),
            "/",
        ),
    ];
    for (spec, sent, target, (header, value), arrives) in rows {
        let (api, other) = (Origin::plain().await, Origin::plain().await);
        let yaml = service("api.test", api.port())
            + &service("other.test", other.port())
            + &credential("api", "api.test", &spec);
        let sidecar = safe.start(yaml);
        for n in 1..=2 {
            let answer = get(&sidecar, "api.test", target, &[sent]).await;
            assert_eq!(answer.status(), 200, "{spec}: {}", answer.text());
            let seen = api.requests().pop().unwrap();
            assert_eq!((api.requests().len(), seen.target()), (n, arrives), "{spec}");
            let found: Vec<_> =
                seen.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(header)).collect();
            assert!(found.len() == 1 && found[0].1 == value, "{spec}: {found:?}");
            let all = format!("{} {:?}", seen.start, seen.headers);
            assert!(!all.contains("agents"), "{spec}: {all}");
        }
        // What the agent shows to others is its own.
        get(&sidecar, "other.test", target, &[sent]).await;
        let seen = &other.requests()[0];
        let all = format!("{} {:?}", seen.start, seen.headers);
        let agents = sent.contains("agents") || target.contains("agents");
        assert!(all.contains("agents") == agents && !all.contains("k3y") && !all.contains(&basic), "{all}");
        safe.is_tight(&sidecar).await;
        let state = state(&sidecar).await;
        assert_eq!((&state["state"], &state["shown"]), (&"ok".into(), &2.into()), "{state}");
    }
}

#[tokio::test]
async fn files_are_read_anew_and_what_was_withdrawn_is_not_shown() {
    let mut safe = Safe::new();
    let key = safe.put("key", "first-secret-key");
    let api = Origin::plain().await;
    let yaml =
        service("api.test", api.port()) + &credential("api", "api.test", &format!("bearer: {{file: {key}}}"));
    let sidecar = safe.start(yaml);
    let last = || api.requests().pop().unwrap().header("authorization");
    assert_eq!(get(&sidecar, "api.test", "/", &[]).await.status(), 200);
    assert_eq!(last().as_deref(), Some("Bearer first-secret-key"));
    safe.put("key", "second-secret-key");
    until(&sidecar, "api.test", |_| last().as_deref() == Some("Bearer second-secret-key")).await;
    std::fs::remove_file(&key).unwrap();
    let answer = until(&sidecar, "api.test", |answer| answer.status() == 503).await;
    assert_eq!(answer.reason(), "credential-unavailable");
    let text = answer.text();
    assert!(text.contains("default/api") && text.contains("No such file"), "{text}");
    let count = api.requests().len();
    assert_eq!(get(&sidecar, "api.test", "/", &["authorization: Bearer own"]).await.status(), 503);
    assert_eq!(api.requests().len(), count, "the agent's own is not shown instead");
    assert_eq!(metric(&sidecar, "pilotfish_credential_ready{credential=\"default/api\"}").await, 0);
    safe.put("key", "third-secret-key");
    until(&sidecar, "api.test", |answer| answer.status() == 200).await;
    assert_eq!(metric(&sidecar, "pilotfish_credential_ready{credential=\"default/api\"}").await, 1);
    assert_eq!(last().as_deref(), Some("Bearer third-secret-key"));
    safe.is_tight(&sidecar).await;
}

#[tokio::test]
async fn files_that_are_no_secrets() {
    let safe = Safe::new();
    let path = safe.path("key");
    let text = path.to_str().unwrap();
    let yaml = service("api.test", 1) + &credential("api", "api.test", &format!("bearer: {{file: {text}}}"));
    for (content, says) in [
        (None, "No such file"),
        (Some(" \n".to_owned()), "the file is empty"),
        (Some("a\nb\n".to_owned()), "more than one line"),
        (Some("a".repeat(70_000)), "at most 65536 bytes"),
    ] {
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let sidecar = sidecar().yaml("a.yaml", yaml.as_str()).start();
        let answer = get(&sidecar, "api.test", "/", &[]).await;
        assert_eq!((answer.status(), &*answer.reason()), (503, "credential-unavailable"));
        assert!(answer.text().contains(says), "{}", answer.text());
    }
    std::fs::write(&path, "readable").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let sidecar = sidecar().yaml("a.yaml", yaml.as_str()).start();
    said(&sidecar, "everybody on the machine may read").await;
    // A folder is none, and a pipe is not waited for.
    let folder =
        credential("api", "api.test", &format!("bearer: {{file: {}}}", safe.folder.path().display()));
    let sidecar = crate::support::sidecar().yaml("a.yaml", service("api.test", 1) + &folder).start();
    assert!(get(&sidecar, "api.test", "/", &[]).await.text().contains("a secret is in a file"));
}

#[tokio::test]
async fn the_most_exact_document_is_shown_and_the_other_is_warned_of() {
    let mut safe = Safe::new();
    let (one, two, three) =
        (safe.put("1", "key-one-x"), safe.put("2", "key-two-x"), safe.put("3", "key-three-x"));
    let api = Origin::plain().await;
    let bearer = |file: &str| format!("bearer: {{file: {file}}}");
    let selector = "selector: {matchLabels: {app: tester}}\n".to_owned();
    let elsewhere = "selector: {matchLabels: {app: other}}\n".to_owned();
    let yaml = service("api.test", api.port())
        + &service("x.api.test", api.port())
        + &credential("a-wide", "\"*.api.test\", api.test", &bearer(&one))
        + &credential("b-own", "api.test", &(selector + &bearer(&two)))
        + &credential("c-other", "api.test", &(elsewhere + &bearer(&three)));
    let sidecar = safe.start(yaml);
    for (host, expected) in [("api.test", "Bearer key-two-x"), ("x.api.test", "Bearer key-one-x")] {
        get(&sidecar, host, "/", &[]).await;
        assert_eq!(api.requests().pop().unwrap().header("authorization").as_deref(), Some(expected));
    }
    said(&sidecar, "OutboundCredential default/b-own is shown to api.test instead").await;
    assert!(!admin(&sidecar, "/config").await.contains("c-other"));
    safe.is_tight(&sidecar).await;
}
