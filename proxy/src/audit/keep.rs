//! Keeps records: seals them into the chain and appends them to the folder, in batches; without a folder in memory, until the
//! control plane has them. What cannot be kept is counted, and said by a `gap` record as soon as one can be written.

use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pilotfish_audit::writer::{Limits, Old, erase_aside};
use pilotfish_audit::{Opened, Tip, Writer};
use pilotfish_config::wire::AuditWhat;

use super::line::{Open, count};
use super::state::State;
use crate::telemetry::log;
use crate::telemetry::text::push_time;

/// Lines that wait for the disk, bytes; more are counted as lost.
const WAITING: usize = 1 << 20;
/// Lines that wait in memory for the control plane when there is no folder, bytes.
const MEMORY: usize = 4 << 20;
/// What was written is on the disk for certain after so long, nanoseconds.
const SYNC: u64 = 1_000_000_000;
/// How often a disk that takes nothing is mentioned, nanoseconds.
const SAY_EVERY: u64 = 30_000_000_000;

/// Where records go.
#[derive(Debug)]
pub struct Keeper<'s> {
    state: &'s State,
    place: Option<PathBuf>,
    /// `namespace/name`.
    agent: String,
    limits: Limits,
    /// What the folder may take, bytes, and what it takes.
    disk: u64,
    used: u64,
    chain: String,
    /// There once the folder could be opened.
    writer: Option<Writer>,
    /// After all lines that are sealed.
    tip: Option<Tip>,
    /// Sealed, not written.
    lines: String,
    /// The place of the first of them.
    first: u64,
    synced_at: u64,
    unsynced: bool,
    /// The disk did not take all of it when it was waited for last.
    stuck: bool,
    said: Option<u64>,
}

impl<'s> Keeper<'s> {
    /// Into this folder, which may take `disk` bytes; `chain` is the name of a chain that begins.
    pub fn new(state: &'s State, place: Option<PathBuf>, disk: u64, agent: String, chain: String) -> Self {
        Keeper {
            state,
            place,
            agent,
            limits: limits(None, disk),
            disk,
            used: 0,
            chain,
            writer: None,
            tip: None,
            lines: String::new(),
            first: 1,
            synced_at: 0,
            unsynced: false,
            stuck: false,
            said: None,
        }
    }

    /// Opens the folder, if that is not done, and says so in the log's first record.
    pub fn open(&mut self, now: u64) {
        if self.tip.is_some() {
            return;
        }
        let mut opened = Opened { fresh: true, ..Opened::default() };
        if let Some(place) = &self.place {
            match Writer::open(place, &self.chain) {
                Ok((writer, found)) => {
                    opened = found;
                    self.chain = writer.chain().to_owned();
                    self.first = writer.tip().seq + 1;
                    self.tip = Some(writer.tip());
                    self.used = writer.bytes();
                    self.writer = Some(writer);
                }
                Err(error) => return self.failed(&error, now),
            }
        }
        let tip = *self.tip.get_or_insert_with(|| Tip::origin(&self.chain));
        self.state.opened(&self.chain, tip.seq, self.place.as_deref());
        let detail = begins(&opened);
        if !(opened.fresh || detail.ends_with("in order")) {
            log::warn!("audit log", found = detail);
        }
        self.add(now, AuditWhat::Start, |line| line.text("detail", &detail));
    }

    /// Whether another line fits.
    fn has_room(&self) -> bool {
        self.tip.is_some() && self.lines.len() < WAITING
    }

    /// Adds a record, or counts it as lost. The record is for whoever sends it elsewhere too.
    pub fn add(&mut self, now: u64, what: AuditWhat, fill: impl FnOnce(&mut Open<'_>)) -> Option<&str> {
        if !self.has_room() {
            self.state.lose(now);
            return None;
        }
        self.tell_lost(now);
        let from = self.seal(now, what, fill);
        Some(&self.lines[from..])
    }

    /// Says how many records were lost that no record tells of yet.
    fn tell_lost(&mut self, now: u64) {
        if let Some((lost, since)) = self.state.found() {
            let mut detail = format!("{} could not be kept since ", count(lost, "record"));
            push_time(&mut detail, Duration::from_nanos(since));
            self.seal(now, AuditWhat::Gap, |line| line.text("detail", &detail));
        }
    }

    fn seal(&mut self, now: u64, what: AuditWhat, fill: impl FnOnce(&mut Open<'_>)) -> usize {
        let from = self.lines.len();
        let Some(tip) = &mut self.tip else { return from };
        let mut line = Open(&mut self.lines);
        line.begin(tip.seq + 1, now, what, &self.agent);
        fill(&mut line);
        tip.seal(&mut self.lines, from);
        self.state.records.fetch_add(1, Relaxed);
        from
    }

    /// Whether lines wait to be written, or to be on the disk for certain.
    pub fn is_waiting(&self) -> bool {
        !self.lines.is_empty() || self.unsynced
    }

    /// Writes what waits; what cannot be written now waits on.
    pub fn write(&mut self, now: u64) {
        if self.used >= self.disk && !self.lines.is_empty() {
            let full = "all of --audit-disk is taken by records that the control plane does not have yet";
            return self.failed(&std::io::Error::other(full), now);
        }
        self.append(now);
        if self.lines.is_empty() && self.tip.is_some() {
            // At once: who knows whether another record ever comes.
            self.tell_lost(now);
        }
    }

    fn append(&mut self, now: u64) {
        let Some(tip) = self.tip else { return };
        if !self.lines.is_empty() {
            let written = match &mut self.writer {
                Some(writer) => writer.append(self.lines.as_bytes(), self.first, tip, now, &self.limits),
                None => self.state.remember(&self.lines, MEMORY),
            };
            if let Err(error) = written {
                return self.failed(&error, now);
            }
            if self.writer.is_some() {
                self.used += self.lines.len() as u64;
            }
            self.lines.clear();
            (self.first, self.unsynced) = (tip.seq + 1, true);
            if !self.stuck {
                self.recovered();
            }
        }
        if self.unsynced && now.abs_diff(self.synced_at) >= SYNC {
            self.sync(now);
        }
    }

    fn sync(&mut self, now: u64) {
        self.synced_at = now;
        let synced = self.writer.as_mut().map_or(Ok(()), Writer::sync);
        let was_stuck = std::mem::replace(&mut self.stuck, synced.is_err());
        if let Err(error) = synced {
            return self.failed(&error, now);
        }
        self.unsynced = false;
        self.state.durable.send_replace(self.first - 1);
        if was_stuck && self.lines.is_empty() {
            self.recovered();
        }
        if self.writer.as_mut().is_some_and(Writer::was_taken) {
            let what = "the file that was written was taken away, or another one put in its place";
            log::error!("audit log", found = what);
            self.add(now, AuditWhat::Gap, |line| line.text("detail", what));
        }
    }

    fn failed(&mut self, error: &std::io::Error, now: u64) {
        self.state.broken.store(true, Relaxed);
        if self.said.is_none_or(|said| now.abs_diff(said) >= SAY_EVERY) {
            self.said = Some(now);
            let place = self.place.as_ref().map_or("memory".into(), |place| place.display().to_string());
            log::error!("audit records cannot be kept", place = place, error = error);
        }
    }

    fn recovered(&mut self) {
        if self.state.broken.swap(false, Relaxed) {
            self.said = None;
            log::info!("audit records can be kept again");
        }
    }

    /// Erases files whose records are all older than the policies say, after a record of that. Files end often enough that a
    /// record outlives its time by a tenth at most, and by an hour.
    pub fn erase(&mut self, now: u64, retention: Option<Duration>) {
        self.limits = limits(retention, self.disk);
        let Some(retention) = retention else { return };
        let until = now.saturating_sub(u64::try_from(retention.as_nanos()).unwrap_or(u64::MAX));
        self.write(now);
        if let Some(Err(error)) = self.place.as_deref().map(|place| erase_aside(place, until)) {
            log::error!("audit records that were set aside cannot be erased", error = error);
        }
        let Some(old) = self.writer.as_ref().and_then(|writer| writer.older(until, now)) else { return };
        let kept = pilotfish_config::units::print_duration(retention);
        self.let_go(now, &old, &format!("older than {kept}, the retention"));
    }

    /// When the folder takes nearly all that it may, the oldest files go; where there is a control plane, only those that it has. While
    /// it has too few of them nothing more is written, and whoever lets calls go on then has a gap.
    pub fn make_room(&mut self, now: u64) {
        while self.used.saturating_add(self.limits.bytes) > self.disk {
            let Some(old) = self.writer.as_ref().and_then(Writer::oldest) else { return };
            if !self.state.may_go(old.last.seq) || !self.let_go(now, &old, "no room for more (--audit-disk)")
            {
                return;
            }
        }
    }

    /// Erases records, after a record of that. Whether they are gone.
    fn let_go(&mut self, now: u64, old: &Old, why: &str) -> bool {
        self.append(now);
        if !self.lines.is_empty() {
            return false;
        }
        // What says so must not go with them.
        if let Some(Err(error)) = self.writer.as_mut().map(Writer::end_stretch) {
            self.failed(&error, now);
            return false;
        }
        let (range, hash) = (format!("{}-{}", old.first, old.last.seq), old.last.hash);
        self.add(now, AuditWhat::Erased, |line| {
            line.text("resource", &range);
            line.text("policy", hash.as_str());
            line.text("detail", why);
        });
        self.append(now);
        self.sync(now);
        let Some(writer) = self.writer.as_mut().filter(|_| self.lines.is_empty()) else { return false };
        let erased = writer.erase(old, None);
        self.used = writer.bytes();
        if let Err(error) = &erased {
            log::error!("audit records cannot be erased", error = error);
        }
        erased.is_ok()
    }

    /// The process ends in order.
    pub fn end(&mut self, now: u64) {
        self.add(now, AuditWhat::End, |_| {});
        self.write(now);
        self.sync(now);
    }
}

/// Files are short enough that an eighth of the disk is free again when the oldest goes.
fn limits(retention: Option<Duration>, disk: u64) -> Limits {
    let usual = Limits::within(retention);
    Limits { bytes: usual.bytes.min(disk / 8), ..usual }
}

/// What the first record of a process says.
fn begins(opened: &Opened) -> String {
    if opened.fresh {
        return "the log begins".into();
    }
    let mut detail = String::from("the log goes on; ");
    if let Some(aside) = &opened.aside {
        let why = if opened.older { "was written by an older Pilotfish" } else { "lost its head" };
        return format!("the log begins anew: the one before {why}, and lies in {}", aside.display());
    }
    if let Some((from, to)) = opened.missing {
        detail += &format!("records {from} to {to} are missing at its end, ");
    }
    if opened.torn > 0 {
        detail += &format!("{} of a torn line were cut, ", count(opened.torn, "byte"));
    }
    let in_order = opened.last.as_ref().is_some_and(|last| last.contains("\"what\":\"end\""));
    detail += if in_order {
        "the process before ended in order"
    } else {
        "the process before did not end in order: what it decided last may be missing"
    };
    detail
}

#[cfg(test)]
mod tests;
