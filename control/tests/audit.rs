//! The audit log through the whole: real sidecars, a control plane that goes away and comes back, `pilotfish audit` and `audit verify`,
//! and logs that somebody changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pilotfish_audit::chain::sealed;
use pilotfish_audit::folder::stretches;
use pilotfish_audit::{Head, Tip};
use pilotfish_testkit::{H1, Nobody, Sidecar};
use serde_json::Value;

use crate::mesh::{binary, pilotfish, sidecar};
use crate::support::serve::Serve;

/// Calls that are refused, since nobody knows the host.
async fn refused(sidecar: &Sidecar, from: usize, to: usize) {
    for n in from..=to {
        let request =
            format!("GET http://elsewhere.test/{n}?key=hunter2 HTTP/1.1\r\nhost: elsewhere.test\r\n\r\n");
        let answer = H1::connect(sidecar.outbound).await.ask(request).await.unwrap();
        assert_eq!(answer.reason(), "egress-not-allowed");
    }
}

/// What was asked for, of all refusals that the control plane has, the newest first; once there are so many.
async fn stored(control: &Serve, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    for _ in 0..600 {
        let text = pilotfish(
            control,
            &["audit", "--agent", "default/caller", "--denied", "--limit", "1000", "-o", "json"],
        );
        let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
        found = rows.iter().map(|row| row["action"].as_str().unwrap().to_owned()).collect();
        if found.len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(found.len(), count, "{found:?}");
    found
}

/// `pilotfish audit verify`: its exit code and what it printed.
fn verify(data: &Path, folders: &[&Path]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilotfish"));
    command.args(["audit", "verify", "--data"]).arg(data).args(folders);
    let output = command.output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.code().unwrap_or(-1), text)
}

/// The only log file below a folder.
fn log(folder: &Path) -> PathBuf {
    let mut found = stretches(folder).unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0).path
}

/// Writes the log anew with another caller in it, every hash reckoned again: no look at it alone can find that.
fn rewrite(folder: &Path) {
    let path = log(folder);
    let head = Head::read(folder).unwrap().unwrap();
    let (mut tip, mut text) = (Tip::origin(&head.chain), String::new());
    for line in fs::read_to_string(&path).unwrap().lines() {
        let (from, line) = (text.len(), sealed(line));
        text.push_str(&line[..line.find(",\"hash\":").unwrap()].replace("elsewhere.test", "harmless.test"));
        tip.seal(&mut text, from);
    }
    fs::write(&path, format!("{{\"prev\":\"{}\",{}", Tip::origin(&head.chain).hash.as_str(), &text[1..]))
        .unwrap();
    Head::new(&head.chain, &tip, None).write(folder, false).unwrap();
}

#[tokio::test]
async fn every_record_arrives_once_and_every_change_is_found() {
    let Some(binary) = binary() else { return };
    let place = Nobody::new();
    let listen = place.addr().to_string();
    let control = Serve::start(&["--listen", &listen]);
    let flags = ["--outbound-policy", "registry-only", "--drain-delay", "0s"];
    let mut caller = sidecar(&binary, &control, "caller").args(&flags).launch().ready().await;
    refused(&caller, 1, 3).await;
    assert_eq!(stored(&control, 3).await, ["GET /3", "GET /2", "GET /1"]);
    let table = pilotfish(&control, &["audit", "--agent", "caller"]);
    assert!(
        table.starts_with("TIME ")
            && table.contains("egress-not-allowed")
            && table.contains("the log begins")
    );
    assert!(!table.contains("hunter2"), "{table}");
    // The control plane goes away for a while: what is decided meanwhile comes later, once.
    let folder = control.kill();
    refused(&caller, 4, 8).await;
    let control = Serve::start_in(folder, &["--listen", &listen]);
    let all: Vec<String> = (1..=8).rev().map(|n| format!("GET /{n}")).collect();
    assert_eq!(stored(&control, 8).await, all);
    let (data, own) = (control.data(), control.folder().path().join("caller/audit"));
    assert_eq!(verify(&data, &[]).0, 0, "{}", verify(&data, &[]).1);
    assert_eq!(verify(&data, &[&own]).0, 0, "{}", verify(&data, &[&own]).1);
    caller.terminate();
    assert!(caller.exit(Duration::from_secs(30)).await.unwrap().success());
    // One byte of the sidecar's own log.
    let path = log(&own);
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replacen("GET /2", "GET /9", 1)).unwrap();
    let (code, text) = verify(&data, &[&own]);
    assert!(
        code == 1 && text.contains("000000000001.jsonl line 3, record 3: the line was changed"),
        "{code} {text}"
    );
    let nobody = tempfile::tempdir().unwrap();
    let (code, text) = verify(nobody.path(), &[&own]);
    assert!(
        code == 1 && text.contains("the line was changed") && text.contains("not compared"),
        "{code} {text}"
    );
    // Its end is cut off.
    let cut = good.rfind("{\"seq\":").unwrap();
    fs::write(&path, &good[..cut]).unwrap();
    let (code, text) = verify(nobody.path(), &[&own]);
    assert!(code == 1 && text.contains("missing at the end"), "{code} {text}");
    // All of it is written anew: only the copy tells.
    fs::write(&path, &good).unwrap();
    rewrite(&own);
    assert_eq!(verify(nobody.path(), &[&own]).0, 0);
    let (code, text) = verify(&data, &[&own]);
    assert!(code == 1 && text.contains("another record at this place"), "{code} {text}");
    fs::write(&path, &good).unwrap();
    // One byte of the copy.
    let chain = fs::read_dir(data.join("audit/default.caller")).unwrap().next().unwrap().unwrap().path();
    let copy = log(&chain);
    let text = fs::read_to_string(&copy).unwrap().replacen("GET /2", "GET /9", 1);
    fs::write(&copy, text).unwrap();
    let (code, text) = verify(&data, &[]);
    assert!(code == 1 && text.contains("record 3: the line was changed"), "{code} {text}");
}

#[tokio::test]
async fn a_log_that_was_written_anew_is_noticed_when_its_sidecar_goes_on_with_it() {
    let Some(binary) = binary() else { return };
    let control = Serve::start(&[]);
    let flags = ["--outbound-policy", "registry-only", "--drain-delay", "0s"];
    let start = || sidecar(&binary, &control, "caller").args(&flags).launch().ready();
    let mut caller = start().await;
    refused(&caller, 1, 3).await;
    stored(&control, 3).await;
    caller.terminate();
    assert!(caller.exit(Duration::from_secs(30)).await.unwrap().success());
    rewrite(&control.folder().path().join("caller/audit"));
    let caller = start().await;
    refused(&caller, 4, 4).await;
    control.said(|line| line.contains("the log was written anew")).await;
    let (code, text) = verify(&control.data(), &[]);
    assert!(code == 1 && text.contains("the log was written anew"), "{code} {text}");
}
