//! Reads the store: records that somebody asks for, the newest first, and whether its chains are whole.

use std::fs;
use std::io;
use std::path::Path;

use pilotfish_audit::folder::{HEAD, stretches};
use pilotfish_audit::reader::{Look, back};
use pilotfish_audit::{Finding, Head, Report, verify as look};
use pilotfish_config::wire::AuditRecord;
use serde::{Deserialize, Serialize};

use super::Retention;
use super::chains::{FINDINGS, all};

/// Which records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Of the sidecar of this agent: `namespace/name`, or `name` in every namespace.
    pub agent: Option<String>,
    /// Whose caller, or a token's owner, has this in its name.
    pub caller: Option<String>,
    /// Only what was refused.
    pub denied: bool,
    /// Not before, nanoseconds since 1970.
    pub since: Option<u64>,
    /// Before.
    pub until: Option<u64>,
    /// Of this trace, or one that begins so.
    pub trace: Option<String>,
    /// Whose policy has this in its name.
    pub policy: Option<String>,
    /// So many at most.
    pub limit: usize,
}

/// A record, and the chain that it is of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The chain of hashes, 32 hexadecimal digits; `chain` is the record's own word for who asked whom.
    pub log: String,
    /// The record.
    #[serde(flatten)]
    pub record: AuditRecord,
}

impl Query {
    fn fits(&self, record: &AuditRecord) -> bool {
        let has =
            |text: &str, part: &Option<String>| part.as_ref().is_none_or(|part| text.contains(part.as_str()));
        (!self.denied || record.outcome == "denied")
            && (has(&record.caller, &self.caller) || has(&record.request_principal, &self.caller))
            && has(&record.policy, &self.policy)
            && self.trace.as_ref().is_none_or(|trace| record.trace.starts_with(trace.as_str()))
            && self.until.is_none_or(|until| record.time_ns < until)
    }

    /// Whether a line cannot fit; looked at before it is read.
    fn cannot(&self, line: &str) -> bool {
        let lacks = |part: &Option<String>| part.as_ref().is_some_and(|part| !line.contains(part.as_str()));
        (self.denied && !line.contains("\"outcome\":\"denied\"")) || lacks(&self.trace)
    }
}

fn is_of(agent: &str, wanted: Option<&str>) -> bool {
    let short = agent.split_once('/').map_or(agent, |(_, name)| name);
    wanted.is_none_or(|wanted| wanted == agent || wanted == short)
}

/// Records that fit, the newest first; none older than the policies say, though its file be there still.
pub fn find(folder: &Path, query: &Query, now: u64, retention: &Retention) -> io::Result<Vec<Row>> {
    let mut found: Vec<Row> = Vec::new();
    for (agent, chain) in all(folder) {
        if !is_of(&agent, query.agent.as_deref()) {
            continue;
        }
        let kept = retention(&agent).map(|kept| u64::try_from(kept.as_nanos()).unwrap_or(u64::MAX));
        let since = query.since.max(kept.map(|kept| now.saturating_sub(kept))).unwrap_or(0);
        let name = chain.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let before = found.len();
        back(&chain, |line| {
            let at = pilotfish_audit::chain::time(line.as_bytes());
            if at.is_some_and(|at| at < since) {
                return Look::Past;
            }
            if !query.cannot(line)
                && let Ok(record) = serde_json::from_str::<AuditRecord>(line)
                && query.fits(&record)
            {
                found.push(Row { log: name.clone(), record });
            }
            if found.len() - before < query.limit { Look::On } else { Look::Enough }
        })?;
    }
    found.sort_by_key(|row| std::cmp::Reverse((row.record.time_ns, row.record.seq)));
    found.truncate(query.limit);
    Ok(found)
}

/// How the chains of an agent are.
pub fn verify(folder: &Path, agent: Option<&str>) -> io::Result<Vec<Report>> {
    let mut reports = Vec::new();
    for (name, chain) in all(folder).into_iter().filter(|(name, _)| is_of(name, agent)) {
        let came = fs::read(chain.join(FINDINGS)).unwrap_or_default();
        let came = String::from_utf8_lossy(&came);
        if came.is_empty()
            && Head::read(&chain).is_ok_and(|head| head.is_none())
            && stretches(&chain)?.is_empty()
        {
            // It was about to begin.
            continue;
        }
        let mut report = look(&chain)?;
        if !report.is_whole() {
            // Something may have come just now.
            report = look(&chain)?;
        }
        report.findings.extend(came.lines().zip(1..).map(|(text, line)| {
            let what = "the line was changed: it is no finding any more".into();
            let changed = Finding { file: FINDINGS.into(), line, seq: 0, what };
            serde_json::from_str(text).unwrap_or(changed)
        }));
        // Whose it is its sender's certificate said; nothing of another agent was ever stored here, and no other log.
        let folder = chain.file_name().unwrap_or_default().to_string_lossy();
        let of_other = !report.agent.is_empty() && report.agent != name;
        if of_other || (!report.chain.is_empty() && report.chain != folder) {
            let what =
                format!("this is the log {} of {}: somebody moved it here", report.chain, report.agent);
            report.findings.push(Finding { file: HEAD.into(), what, ..Finding::default() });
        }
        reports.push(Report { agent: name, ..report });
    }
    Ok(reports)
}
