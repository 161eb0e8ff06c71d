//! The authority from outside: another root takes over, the root key moves away, further control planes get their own.

use std::path::Path;
use std::process::{Command, Output};

use pilotfish_config::wire::Joined;
use pilotfish_control::api::types::TrustStatus;

use crate::support::serve::start_to_fail;
use crate::support::sidecar::{joined, renew};
use crate::support::{Http, Serve};

fn pilotfish(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pilotfish")).args(args).env_clear().output().unwrap()
}

fn done(args: &[&str]) -> String {
    let output = pilotfish(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// With two roots trusted, the control plane changes to the new one; a sidecar that joined under the old one renews, and
/// from then on the old one may go.
#[tokio::test(flavor = "multi_thread")]
async fn another_root_takes_over() {
    let serve = Serve::start(&[]);
    let planner = joined(&serve, "default", "planner").await;
    let data = serve.data();
    let out = tempfile::tempdir().unwrap();
    let root = done(&["ca", "new-root", "--out", text(out.path())]);
    let (root_cert, root_key) = root.trim().split_once('\n').unwrap();
    let old: TrustStatus = Http::socket(&serve).await.get("/v1/trust").await.ok();
    done(&["trust", "add", root_cert, "--data", text(&data)]);
    let issue = ["ca", "issue-intermediate", "--root-cert", root_cert, "--root-key", root_key];
    let made = done(&[&issue[..], &["--out", text(out.path())]].concat());
    let (chain, key) = made.trim().split_once('\n').unwrap();

    let serve = Serve::start_in(serve.kill(), &["--ca-cert", chain, "--ca-key", key]);
    let now: TrustStatus = Http::socket(&serve).await.get("/v1/trust").await.ok();
    assert_eq!(now.roots.len(), 2);
    assert_ne!(now.issuer.fingerprint, old.issuer.fingerprint);
    let renewed: Joined =
        renew(&mut Http::tls(&serve, Some(&planner)).await, "default", "planner").await.ok();
    assert_eq!(renewed.bundles["cluster.local"].matches("BEGIN").count(), 2);
    done(&["trust", "remove", &old.roots[0].fingerprint, "--data", text(&data)]);
    assert!(Http::try_tls(serve.listen, Some(&planner)).await.is_err(), "nothing vouches for it any more");
    let fresh = joined(&serve, "default", "coder").await;
    let _: Joined = renew(&mut Http::tls(&serve, Some(&fresh)).await, "default", "coder").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_key_may_be_away() {
    let serve = Serve::start(&[]);
    let data = serve.data();
    let safe = tempfile::tempdir().unwrap();
    std::fs::rename(data.join("ca/root.key"), safe.path().join("root.key")).unwrap();
    let serve = Serve::start_in(serve.kill(), &[]);
    joined(&serve, "default", "planner").await;
    let out = safe.path().join("second");
    let refused = pilotfish(&["ca", "issue-intermediate", "--data", text(&data), "--out", text(&out)]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("root.key"), "{said}");
    assert!(!out.exists());
    // Where the key is, an intermediate can be made; it is never written over another.
    let (root, key) = (data.join("ca/root.pem"), safe.path().join("root.key"));
    let issue = ["ca", "issue-intermediate", "--root-cert", text(&root), "--root-key", text(&key)];
    let issue = [&issue[..], &["--out", text(&out)]].concat();
    done(&issue);
    assert_eq!(pilotfish(&issue).status.code(), Some(1));
}

#[test]
fn a_brought_authority_that_nobody_would_trust_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let made = done(&["ca", "new-root", "--out", text(&out)]);
    let (cert, key) = made.trim().split_once('\n').unwrap();
    let (status, said) = start_to_fail(&folder.path().join("data"), &["--ca-cert", cert, "--ca-key", key]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("issue-intermediate"), "{said}");
}
