//! Appends what arrives to the chain that it is of, and says what does not hang together.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pilotfish_audit::folder::{LONGEST_LINE, regular, stretches};
use pilotfish_audit::reader::hash_at;
use pilotfish_audit::writer::{Limits, older};
use pilotfish_audit::{Finding, Hash, Line, Tip, Writer};
use pilotfish_config::wire::{AuditBatch, AuditRecord};

use super::Retention;
use crate::log;

/// What was found when lines came, beside a chain's stretches.
pub const FINDINGS: &str = "findings.jsonl";
/// Chains that are open at a time.
const OPEN: usize = 512;
/// Stretches that one batch begins: each is put on the disk by itself.
const MOST_STRETCHES: usize = 8;
/// Findings that are kept of one chain, bytes.
const MOST_FINDINGS: u64 = 1 << 20;

/// What one agent takes of the disk.
#[derive(Debug, Default)]
struct Share<'f> {
    bytes: u64,
    /// When each stretch ends, its size and its folder; the oldest last.
    stretches: Vec<(u64, u64, &'f PathBuf)>,
}

/// All chains.
pub struct Chains {
    folder: PathBuf,
    disk: u64,
    retention: Retention,
    open: BTreeMap<PathBuf, Chain>,
}

#[derive(Debug)]
struct Chain {
    folder: PathBuf,
    writer: Writer,
    /// It was asked for what comes after this record, because something was missing.
    asked: Option<u64>,
    limits: Limits,
}

impl Chains {
    /// Those in a folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(folder: &Path, disk: u64, retention: Retention) -> io::Result<Chains> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Chains { folder: folder.to_owned(), disk, retention, open: BTreeMap::new() })
    }

    /// Appends a batch; the record up to which the chain is here now.
    ///
    /// # Errors
    /// The disk's, or it is no batch.
    pub fn append(&mut self, agent: &str, batch: &AuditBatch, now: u64) -> io::Result<u64> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let is_chain = batch.chain.len() == 32 && batch.chain.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_chain {
            return Err(bad("a chain is not named by 32 hexadecimal digits"));
        }
        let folder = self.folder.join(folder_of(agent).ok_or_else(|| bad("no agent has such a name"))?);
        let folder = folder.join(&batch.chain);
        if self.open.len() >= OPEN && !self.open.contains_key(&folder) {
            self.sync(now)?;
            self.open.clear();
        }
        let chain = match self.open.entry(folder) {
            std::collections::btree_map::Entry::Occupied(chain) => chain.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let (writer, _) = Writer::open(place.key(), &batch.chain)?;
                let folder = place.key().clone();
                place.insert(Chain {
                    folder,
                    writer,
                    asked: None,
                    limits: Limits::within((self.retention)(agent)),
                })
            }
        };
        chain.take(agent, batch, now)
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&mut self, now: u64) -> io::Result<()> {
        for chain in self.open.values_mut() {
            chain.writer.sync()?;
            if chain.writer.was_taken() {
                let what = "the file that was written was taken away, or another one put in its place";
                chain.find(now, chain.writer.tip().seq, what);
            }
        }
        Ok(())
    }

    /// Erases what is too old, and where there is no room the oldest of whoever takes most.
    pub fn erase(&mut self, now: u64) {
        let failed = |error: io::Error| log::error!("audit records cannot be erased", error = error);
        let all = all(&self.folder);
        for (agent, folder) in &all {
            let retention = (self.retention)(agent);
            if let Some(chain) = self.open.get_mut(folder) {
                chain.limits = Limits::within(retention);
            }
            let Some(retention) = retention else { continue };
            let until = now.saturating_sub(u64::try_from(retention.as_nanos()).unwrap_or(u64::MAX));
            let why =
                format!("older than {}, the retention", pilotfish_config::units::print_duration(retention));
            if older(folder, until, now).is_some() {
                self.erase_of(folder, &why, |writer| writer.older(until, now)).unwrap_or_else(failed);
            }
        }
        let mut shares: BTreeMap<&str, Share<'_>> = BTreeMap::new();
        for (agent, folder) in &all {
            let share = shares.entry(agent).or_default();
            for stretch in pilotfish_audit::folder::stretches(folder).unwrap_or_default() {
                let size = stretch.path.metadata().map_or(0, |meta| meta.len()).max(4096);
                share.bytes += size;
                share.stretches.push((stretch.newest().unwrap_or(0), size, folder));
            }
        }
        shares.values_mut().for_each(|share| share.stretches.sort_unstable_by(|a, b| b.cmp(a)));
        let mut total: u64 = shares.values().map(|share| share.bytes).sum();
        while total > self.disk {
            // Whoever fills the room makes room: a flood pushes nobody else's records out.
            let Some(share) = shares.values_mut().max_by_key(|share| share.bytes) else { break };
            let Some((_, size, folder)) = share.stretches.pop() else { break };
            share.bytes -= size;
            total -= size;
            let why = "there was no room for more (--audit-disk)";
            self.erase_of(folder, why, Writer::oldest).unwrap_or_else(failed);
        }
    }

    fn erase_of(
        &mut self,
        folder: &Path,
        why: &str,
        old: impl FnOnce(&Writer) -> Option<pilotfish_audit::writer::Old>,
    ) -> io::Result<()> {
        if let Some(chain) = self.open.get_mut(folder) {
            return erase(&mut chain.writer, why, old);
        }
        let chain = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        erase(&mut Writer::open(folder, &chain)?.0, why, old)
    }
}

fn erase(
    writer: &mut Writer,
    why: &str,
    old: impl FnOnce(&Writer) -> Option<pilotfish_audit::writer::Old>,
) -> io::Result<()> {
    match old(writer) {
        Some(old) => writer.erase(&old, Some(why)),
        None => Ok(()),
    }
}

impl Chain {
    fn take(&mut self, agent: &str, batch: &AuditBatch, now: u64) -> io::Result<u64> {
        let (mut tip, mut text, mut first, mut known) = (self.writer.tip(), String::new(), 0, 0);
        // When the lines of `text` were written: the first, and the last.
        let (mut times, mut stretches) = ((0, 0), 0);
        // What the next line says it hangs on, by the line before it; of the one after a line that is none nobody knows.
        let mut before = Hash::parse(batch.prev.as_bytes());
        for raw in &batch.lines {
            let own = |record: &AuditRecord| record.agent == agent;
            let read = Line::read(raw.as_bytes())
                .filter(|line| line.prev.is_none() && raw.len() < LONGEST_LINE && !raw.contains('\n'));
            let hangs_on = std::mem::replace(&mut before, read.map(|line| line.hash));
            let read = read.filter(|line| hangs_on.is_none_or(|hash| line.is_behind(&hash)));
            let record = serde_json::from_str::<AuditRecord>(raw).ok();
            let (Some(line), Some(record)) = (read, record) else {
                // It would come again for ever.
                known = pilotfish_audit::chain::seq(raw.as_bytes()).unwrap_or(known);
                self.find(now, known, "a line came that is not as it was written");
                continue;
            };
            if !own(&record) {
                known = line.seq;
                self.find(
                    now,
                    line.seq,
                    &format!("the sidecar of {agent} sent a record of {}", record.agent),
                );
                continue;
            }
            if line.seq <= tip.seq && self.has(&line, tip, &text)? {
                known = line.seq;
                continue;
            }
            if line.seq > tip.seq + 1 && self.asked != Some(tip.seq) {
                // Perhaps another control plane has what is missing; the sidecar has it too.
                self.asked = Some(tip.seq);
                known = 0;
                break;
            }
            if !line.follows(&tip) {
                if let Some(hash) = hangs_on.filter(|_| tip.seq == 0 && line.seq > 1 && text.is_empty()) {
                    let before = Tip { seq: line.seq - 1, hash };
                    self.writer.hang_on(before, "the sidecar had no older ones any more");
                } else if line.seq > tip.seq + 1 {
                    // Its verification sees that, and whether the sidecar erased them because they were old.
                    let folder = self.folder.display();
                    log::warn!(
                        "audit records never came",
                        folder = folder,
                        after = tip.seq,
                        until = line.seq
                    );
                } else if line.seq <= tip.seq {
                    self.find(
                        now,
                        line.seq,
                        "another record came with a place that was taken: the log was written anew",
                    );
                } else {
                    self.find(
                        now,
                        line.seq,
                        "a record came that hangs on another one than the last: the log was written anew",
                    );
                }
            }
            // What comes late is as old as it says: its files end as those that came in time, and are erased as soon.
            if !text.is_empty() && self.limits.ends(times.0, record.time_ns) {
                stretches += 1;
                if stretches > MOST_STRETCHES {
                    // What follows is sent again.
                    known = 0;
                    break;
                }
                self.writer.append(text.as_bytes(), first, tip, times.1, &self.limits)?;
                text.clear();
            }
            if text.is_empty() {
                (first, times.0) = (line.seq, record.time_ns);
            }
            times.1 = record.time_ns;
            text.push_str(raw);
            text.push('\n');
            tip = line.tip();
        }
        if !text.is_empty() {
            self.writer.append(text.as_bytes(), first, tip, times.1, &self.limits)?;
            self.asked = None;
        }
        Ok(tip.seq.max(known))
    }

    /// Whether this very line is here already, on the disk or in the batch.
    fn has(&self, line: &Line, tip: Tip, batch: &str) -> io::Result<bool> {
        if line.tip() == tip || batch.contains(line.hash.as_str()) {
            return Ok(true);
        }
        if self.writer.anchor().is_some_and(|anchor| line.seq <= anchor.seq) {
            return Ok(true);
        }
        Ok(hash_at(&self.folder, line.seq)?.is_some_and(|stored| stored.hash == line.hash))
    }

    /// Keeps what is wrong, and says so in the log.
    fn find(&self, now: u64, seq: u64, what: &str) {
        log::warn!("audit log", folder = self.folder.display(), record = seq, found = what);
        let path = self.folder.join(FINDINGS);
        if path.metadata().is_ok_and(|meta| meta.len() > MOST_FINDINGS) {
            return;
        }
        if let Err(error) = regular(&path) {
            return log::error!("a finding cannot be kept", error = error);
        }
        let at = Duration::from_nanos(now).as_secs();
        let what = format!("{what} (it came at {})", crate::cli::human::date(at));
        let finding = Finding { file: FINDINGS.into(), line: 0, seq, what };
        let written =
            File::options().append(true).create(true).mode(0o600).open(path).and_then(|mut file| {
                let mut line = serde_json::to_vec(&finding).map_err(io::Error::other)?;
                line.push(b'\n');
                file.write_all(&line)
            });
        if let Err(error) = written {
            log::error!("a finding cannot be kept", error = error);
        }
    }
}

/// The folder of an agent (`namespace/name`): a namespace has no dot.
fn folder_of(agent: &str) -> Option<String> {
    let (namespace, name) = agent.split_once('/')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let good = !namespace.is_empty()
        && namespace.bytes().all(plain)
        && !name.is_empty()
        && name.bytes().all(|byte| plain(byte) || byte == b'.');
    good.then(|| format!("{namespace}.{name}"))
}

/// All chains that there are: whose, and where.
pub fn all(folder: &Path) -> Vec<(String, PathBuf)> {
    let within = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        // A link leads to what is no log of that agent.
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut all: Vec<PathBuf> = folders.map(|entry| entry.path()).collect();
        all.sort();
        all
    };
    let mut found = Vec::new();
    for agent in within(folder) {
        let name = agent.file_name().unwrap_or_default().to_string_lossy().replacen('.', "/", 1);
        found.extend(within(&agent).into_iter().map(|chain| (name.clone(), chain)));
    }
    found.retain(|(_, chain)| stretches(chain).is_ok());
    found
}
