//! What the sidecar shows to hosts outside on its agent's behalf: keys from files, tokens that it obtains or exchanges; to whom it is
//! never shown, and that nobody else sees it.

mod behalf;
mod hosts;
mod keys;
mod tokens;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pilotfish_testkit::h1::Answer;
use pilotfish_testkit::{H1, Sidecar};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::sidecar;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Files with secrets, and what must never be seen of them.
struct Safe {
    folder: TempDir,
    secrets: Vec<String>,
}

impl Safe {
    fn new() -> Safe {
        Safe { folder: tempfile::tempdir().unwrap(), secrets: Vec::new() }
    }

    /// A secret in a file; its path.
    fn put(&mut self, name: &str, secret: &str) -> String {
        let (path, beside) = (self.path(name), self.folder.path().join("beside"));
        std::fs::write(&beside, format!("{secret}\n")).unwrap();
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(beside, &path).unwrap();
        self.secrets.push(secret.to_owned());
        path.to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a sidecar that logs everything that it can.
    fn start(&self, yaml: impl Into<String>) -> Sidecar {
        self.builder(yaml).start()
    }

    fn builder(&self, yaml: impl Into<String>) -> pilotfish_testkit::sidecar::Builder {
        let log = self.path("access.log");
        sidecar().yaml("a.yaml", yaml).args(&[
            "--access-log",
            "json",
            "--access-log-file",
            log.to_str().unwrap(),
        ])
    }

    /// No secret is in anything that the sidecar tells.
    async fn is_tight(&self, sidecar: &Sidecar) {
        let mut told = sidecar.stderr().join("\n");
        told.push_str(&std::fs::read_to_string(self.path("access.log")).unwrap_or_default());
        for path in ["/config", "/why?all", "/why?last=50"] {
            told.push_str(&admin(sidecar, path).await);
        }
        told.push_str(&pilotfish_testkit::h1::get(sidecar.admin, "x", "/metrics", &[]).await.unwrap().text());
        for secret in &self.secrets {
            assert!(!told.contains(secret), "{secret} is told");
            let basic = data_encoding::BASE64.encode(secret.as_bytes());
            assert!(!told.contains(basic.trim_end_matches('=')), "{secret} is told in base64");
        }
    }
}

/// What the admin socket answers.
async fn admin(sidecar: &Sidecar, path: &str) -> String {
    let mut stream = tokio::net::UnixStream::connect(&sidecar.admin_socket).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// What `/config` says of the only credential.
async fn state(sidecar: &Sidecar) -> Value {
    let text = admin(sidecar, "/config").await;
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let config: Value = serde_json::from_str(body).unwrap();
    config["credentials"][0].clone()
}

/// An OutboundCredential with this `spec` after `hosts` (YAML, indented by nothing).
fn credential(name: &str, hosts: &str, spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: pilotfish.dev/v1\nkind: OutboundCredential\nmetadata:\n  name: {name}\nspec:\n  hosts: [{hosts}]\n{spec}---\n"
    )
}

async fn get(sidecar: &Sidecar, host: &str, target: &str, headers: &[&str]) -> Answer {
    H1::connect(sidecar.outbound).await.get(host, target, headers).await.unwrap()
}

/// Waits until the sidecar's log says this.
async fn said(sidecar: &Sidecar, what: &str) {
    let began = Instant::now();
    while !sidecar.stderr().join("\n").contains(what) {
        assert!(began.elapsed() < PATIENCE, "it does not say {what:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Asks until the answer fits.
async fn until(sidecar: &Sidecar, host: &str, fits: impl Fn(&Answer) -> bool) -> Answer {
    let began = Instant::now();
    loop {
        let answer = get(sidecar, host, "/", &[]).await;
        if fits(&answer) {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{} {}", answer.status(), answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
