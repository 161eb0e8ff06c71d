//! Open loop: requests start when a Poisson process says, whether or not earlier ones were answered, and latency counts
//! from that intended start, so that a proxy that stalls is charged for all who had to wait.

use std::collections::VecDeque;
use std::io;

use serde_json::{Value, json};

use super::request::{Class, Requests};
use super::{Answer, Client};
use crate::clock::now_ns;
use crate::samples::Samples;

/// Answers slower than this are listed one by one, with the time at which they were due.
const SLOW_NS: u64 = 1_000_000;
/// At most so many of them.
const SLOW_KEPT: usize = 20_000;

/// An answer that came later than this is of no use to anyone.
const USEFUL_NS: u64 = 1_000_000_000;
/// What is due before that counts as the start of the run.
const EARLY_NS: u64 = 2_000_000_000;

/// How requests ended, by when they were due and how important they are.
#[derive(Default)]
struct Ends {
    start: u64,
    /// Of the first two seconds, and of the rest: all, and those that got no 2xx.
    early: (u64, u64),
    late: (u64, u64),
    /// For each class: all, and those with a 2xx in time to be useful.
    classes: [(u64, u64); 3],
}

impl Ends {
    fn note(&mut self, answer: &Answer) {
        let ok = answer.status / 100 == 2;
        let due = answer.at - answer.took_ns;
        let part = if due < self.start + EARLY_NS { &mut self.early } else { &mut self.late };
        part.0 += 1;
        part.1 += u64::from(!ok);
        let class = &mut self.classes[answer.class as usize];
        class.0 += 1;
        class.1 += u64::from(ok && answer.took_ns <= USEFUL_NS);
    }

    fn json(&self) -> Value {
        let percent = |(all, some): (u64, u64)| 100.0 * some as f64 / all.max(1) as f64;
        let class = |class: Class| {
            let (all, useful) = self.classes[class as usize];
            (class.word().to_owned(), json!({ "asked": all, "useful": useful }))
        };
        json!({
            "failed_early_pct": percent(self.early), "failed_late_pct": percent(self.late),
            "classes": Class::ALL.into_iter().map(class).collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// What a run collects.
struct Open {
    idle: Vec<usize>,
    /// Intended starts that found no idle connection.
    backlog: VecDeque<u64>,
    latency: Samples,
    slow: Vec<(u64, u64)>,
    /// When the watched header first had another value than before, and which.
    changes: Vec<(u64, String)>,
    watching: bool,
    ends: Ends,
}

impl Open {
    fn answered(&mut self, client: &mut Client, answer: &Answer) {
        self.latency.push(answer.took_ns);
        self.ends.note(answer);
        if answer.took_ns > SLOW_NS && self.slow.len() < SLOW_KEPT {
            self.slow.push((answer.at - answer.took_ns, answer.took_ns));
        }
        if self.watching {
            let value = String::from_utf8_lossy(client.watched(answer.conn));
            if self.changes.last().is_none_or(|(_, last)| *last != value) {
                self.changes.push((answer.at, value.into_owned()));
            }
        }
        match self.backlog.pop_front() {
            Some(due) => client.send(answer.conn, due),
            None => self.idle.push(answer.conn),
        }
    }
}

/// Runs for `secs` seconds over at most `conns` connections, `rate` requests a second on average. `cold`: nothing is sent
/// before the start.
///
/// # Errors
/// When the connections cannot be made.
pub fn run(
    port: u16,
    conns: usize,
    secs: f64,
    rate: f64,
    cold: bool,
    requests: Requests,
) -> io::Result<Value> {
    let watching = requests.watch().is_some();
    let mut client = Client::connect(port, conns, requests)?;
    let mut open = Open {
        idle: Vec::with_capacity(conns),
        backlog: VecDeque::new(),
        latency: Samples::with_capacity((rate * secs * 1.2) as usize),
        slow: Vec::new(),
        changes: Vec::new(),
        watching,
        ends: Ends::default(),
    };
    if cold {
        open.idle.extend(0..conns);
    } else {
        warm(&mut client, conns, &mut open)?;
    }
    let mut random = fastrand::Rng::with_seed(20_260_101);
    let start = now_ns();
    open.ends = Ends { start, ..Ends::default() };
    let end = start + (secs * 1e9) as u64;
    let mut next = start as f64;
    let (mut sent, mut deepest) = (0u64, 0);
    loop {
        let now = now_ns();
        if now >= end {
            break;
        }
        while next <= now as f64 {
            let due = next as u64;
            match open.idle.pop() {
                Some(conn) => client.send(conn, due),
                None => open.backlog.push_back(due),
            }
            sent += 1;
            next += -(1.0 - random.f64()).ln() * 1e9 / rate;
        }
        deepest = deepest.max(open.backlog.len());
        let wait = (next as u64).min(end).saturating_sub(now_ns());
        client.poll(wait, |client, answer| open.answered(client, &answer))?;
    }
    let give_up = now_ns() + 2_000_000_000;
    while (open.latency.len() as u64) < sent && now_ns() < give_up {
        client.poll(10_000_000, |client, answer| open.answered(client, &answer))?;
    }
    let mut result = client.counts.json();
    result["unanswered"] = json!(sent.saturating_sub(open.latency.len() as u64));
    result["per_sec"] = json!(open.latency.len() as f64 / secs);
    result["deepest_backlog"] = json!(deepest);
    result["ends"] = open.ends.json();
    result["latency_us"] = open.latency.summary();
    if watching {
        result["started_ns"] = json!(start);
        result["changes"] = json!(open.changes);
        result["slow"] = json!(open.slow);
    }
    Ok(result)
}

/// One request on each connection, not counted, so that no connect is measured.
fn warm(client: &mut Client, conns: usize, open: &mut Open) -> io::Result<()> {
    for conn in 0..conns {
        client.send(conn, now_ns());
    }
    let give_up = now_ns() + 1_000_000_000;
    while open.idle.len() < conns && now_ns() < give_up {
        client.poll(10_000_000, |client, answer| open.answered(client, &answer))?;
    }
    open.latency.clear();
    open.slow.clear();
    client.counts.done = 0;
    Ok(())
}
