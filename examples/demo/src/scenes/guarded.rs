//! Who may call whom: policies, the reasons of refusals, an agent that acts for another, one that is cut off, and the
//! record of it all, in which one byte is edited.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{MESH_HOST, NLP, PATIENCE, Row, STREAMING, Shown, Stage, ensure, millis, off, row, target};
use crate::children::Failure;
use crate::control::CONTROL;
use crate::job::{Job, Report, Target};
use crate::mesh::CALLER;

/// How long one look waits for the next.
const AGAIN: Duration = Duration::from_millis(50);
/// The agent that policies guard.
const GUARDED: &str = "streaming-agent";

/// A record of the audit log, as far as the demo looks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record {
    caller: String,
    chain: Vec<String>,
    action: String,
}

impl Stage<'_> {
    /// The calls and what became of them, and what the control plane says of them.
    pub(super) async fn guarded(&mut self) -> Result<(Vec<Row>, Vec<Shown>), Failure> {
        let policies = self.mesh.policies()?;
        self.mesh.control.cli(&["apply", "-f", &policies, "--wait=30s"]).await?;
        let mut rows = vec![self.may().await?, self.may_not().await?, self.acts_for().await?];
        let mut shown = vec![
            self.explained(&["--from", CALLER, "--method", "POST", "--path", "/book"], false).await?,
            self.explained(&["--from", "nlp-agent", "--path", "/salaries"], true).await?,
            self.explained(&["--from", "nlp-agent", "--via", CALLER, "--path", "/salaries"], false).await?,
        ];
        rows.extend(self.cut_off().await?);
        shown.extend(self.recorded().await?);
        self.mesh.control.cli(&["delete", "-f", &policies]).await?;
        Ok((rows, shown))
    }

    async fn may(&mut self) -> Result<Row, Failure> {
        let answer = self.ask(target(MESH_HOST, "/stream?tokens=3&gap_ms=5", &[STREAMING])).await?;
        ensure(
            answer.status == 200 && answer.who.agent == GUARDED,
            "GET /stream, which is allowed",
            &answer,
        )?;
        Ok(row("GET /stream, which the policies allow", &[answer]))
    }

    async fn may_not(&mut self) -> Result<Row, Failure> {
        let mut wanted = target(MESH_HOST, "/book", &[STREAMING]);
        wanted.post = true;
        let answer = self.ask(wanted).await?;
        let refused = answer.status == 403 && answer.reason.as_deref() == Some("access-denied");
        ensure(refused, "POST /book, which no policy allows", &answer)?;
        Ok(row("POST /book, which they do not", &[answer]))
    }

    /// nlp-agent may ask for it, but not on behalf of whom it asks for it. The agent passes no header on.
    async fn acts_for(&mut self) -> Result<Row, Failure> {
        let answer = self.ask(target(MESH_HOST, "/research?ask=/salaries", &[NLP])).await?;
        let refused = answer.status == 403 && answer.who.agent.starts_with("nlp-");
        ensure(refused, "GET /salaries by nlp-agent for the caller, who may not", &answer)?;
        let mut row = row("GET /salaries, which nlp-agent may, asked by it for caller", &[answer]);
        row.went_to += ", refused: it acts for caller";
        Ok(row)
    }

    /// What `pilotfish authz explain` says; it ends with 1 where the call would be refused.
    async fn explained(&self, call: &[&str], allowed: bool) -> Result<Shown, Failure> {
        let arguments = [&["authz", "explain", "--to", GUARDED], call].concat();
        let output = self.mesh.control.try_cli(&arguments).await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.code() != Some(if allowed { 0 } else { 1 }) {
            let said = said + &String::from_utf8_lossy(&output.stderr);
            return Err(Failure::of(CONTROL, format!("{arguments:?} ended with {}: {said}", output.status)));
        }
        let output = said.replace(&self.mesh.folder_text(), "");
        Ok(Shown { line: format!("pilotfish {}", arguments.join(" ")), output })
    }

    /// A stream is open while its agent is quarantined, and is cut.
    async fn cut_off(&mut self) -> Result<Vec<Row>, Failure> {
        let mut endless = target(MESH_HOST, "/stream?tokens=10000&gap_ms=20", &[STREAMING]);
        endless.id = self.next_id();
        self.mesh.order(&Job::Listen { target: endless }).await?;
        let begun = self.mesh.report().await?;
        let Report::Begun = begun else { return Err(off(format!("the stream reported {begun:?}"))) };
        let begin = Instant::now();
        self.mesh.control.cli(&["quarantine", CALLER, "--for", "10m", "--why", "a demo"]).await?;
        let over = self.mesh.report().await?;
        let took = begin.elapsed();
        let Report::Over { pieces, cut: true } = over else {
            return Err(off(format!("a quarantined agent's stream reported {over:?}")));
        };
        // Whoever cuts a call writes no line of it.
        let mut stream = Row {
            asked: "/stream, while it is open: pilotfish quarantine caller".to_string(),
            rule: String::new(),
            went_to: format!("{GUARDED}, cut after {pieces} tokens"),
            status: "cut".to_string(),
            time: format!("{:.0} ms after the command", took.as_secs_f64() * 1000.0),
        };
        let next = Target { again: true, ..target(MESH_HOST, "/stream", &[STREAMING]) };
        let answer = self.ask(next).await?;
        let refused = answer.status == 403 && answer.reason.as_deref() == Some("quarantined");
        ensure(refused, "a quarantined agent's next call", &answer)?;
        let next = row("/stream, the next call", &[answer]);
        self.mesh.control.cli(&["release", CALLER]).await?;
        let begin = Instant::now();
        let wanted = target(MESH_HOST, "/stream?tokens=1&gap_ms=1", &[STREAMING]);
        loop {
            let answer = self.ask(wanted.clone()).await?;
            if answer.status == 200 {
                let took = millis(u64::try_from(begin.elapsed().as_micros()).unwrap_or_default());
                let mut released = row("/stream, after pilotfish release caller", &[answer]);
                released.time = format!("{took} after the command");
                stream.rule.clone_from(&released.rule);
                return Ok(vec![stream, next, released]);
            }
            if begin.elapsed() > PATIENCE {
                ensure(false, "a released agent's call", &answer)?;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The log of refusals, and one byte of it edited.
    async fn recorded(&mut self) -> Result<Vec<Shown>, Failure> {
        let listed = ["audit", "--denied", "--agent", GUARDED];
        let begin = Instant::now();
        loop {
            let text = self.mesh.control.cli(&[&listed[..], &["-o", "json"]].concat()).await?;
            let records: Vec<Record> = serde_json::from_str(&text)
                .map_err(|error| Failure::of(CONTROL, format!("audit -o json: {error}: {text}")))?;
            // Sidecars send their records within a second.
            let has = |action: &str, caller: &str, before: Option<&str>| {
                records.iter().any(|record| {
                    record.action == action
                        && record.caller.ends_with(caller)
                        && before.is_none_or(|before| record.chain.iter().any(|own| own.ends_with(before)))
                })
            };
            if has("POST /book", "/caller", None) && has("GET /salaries", "/nlp-agent", Some("/caller")) {
                break;
            }
            if begin.elapsed() > PATIENCE {
                return Err(Failure::of(CONTROL, format!("the audit log has not both refusals: {text}")));
            }
            tokio::time::sleep(AGAIN).await;
        }
        let output = self.mesh.control.cli(&listed).await?;
        let mut shown = vec![Shown { line: format!("pilotfish {}", listed.join(" ")), output }];
        let edited = self.edit_a_byte()?;
        let output = self.mesh.control.try_cli(&["audit", "verify", &edited]).await?;
        let said = String::from_utf8_lossy(&output.stdout).replace(&self.mesh.folder_text(), "");
        if output.status.code() != Some(1) || !said.contains("broken") {
            let said = said + &String::from_utf8_lossy(&output.stderr);
            return Err(Failure::of(CONTROL, format!("an edited audit log passes as whole: {said}")));
        }
        let line =
            "pilotfish audit verify edited     # a copy of the log, one byte of it changed".to_string();
        shown.push(Shown { line, output: said });
        Ok(shown)
    }

    /// A copy of the guarded agent's log, in which one letter of a record is another.
    fn edit_a_byte(&self) -> Result<String, Failure> {
        let lost = || Failure::new(format!("{GUARDED}'s sidecar keeps no audit log"));
        let own = audit_folder(&self.mesh.state_of(GUARDED)).ok_or_else(lost)?;
        let edited = self.mesh.folder().join("edited");
        std::fs::create_dir_all(&edited)?;
        let mut done = false;
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(own)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        files.sort();
        for file in files.iter().filter(|file| file.is_file()) {
            let mut bytes = std::fs::read(file)?;
            let place = bytes.windows(10).position(|bytes| bytes == b"POST /book");
            if let Some(place) = place.filter(|_| !done) {
                bytes[place + "POST /".len()] = b'l';
                done = true;
            }
            std::fs::write(edited.join(file.file_name().unwrap_or_default()), bytes)?;
        }
        if done { Ok(edited.display().to_string()) } else { Err(lost()) }
    }
}

/// The folder `audit` somewhere below.
fn audit_folder(below: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(below).ok()?.flatten().map(|entry| entry.path());
    folders.filter(|path| path.is_dir()).find_map(|path| match path.ends_with("audit") {
        true => Some(path),
        false => audit_folder(&path),
    })
}
