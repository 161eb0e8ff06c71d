//! Steady traffic on several connections, counted by the version that answered.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::{AnyError, Client, since};
use crate::job::{Job, Report, Target};

const TICK: Duration = Duration::from_millis(250);

/// What to send and how fast; see [`crate::job::Job::Load`].
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) connections: usize,
    pub(crate) pause_millis: u64,
}

#[derive(Default)]
struct Counts {
    v1: u64,
    v2: u64,
    failed: u64,
    micros: Vec<u64>,
    first_failure: Option<String>,
}

impl Counts {
    fn count(&mut self, outcome: Result<Report, AnyError>) {
        let what = match outcome {
            Ok(Report::Answer { status: 200, who, micros, .. }) if matches!(&*who.version, "v1" | "v2") => {
                *(if who.version == "v1" { &mut self.v1 } else { &mut self.v2 }) += 1;
                return self.micros.push(micros);
            }
            Ok(report) => format!("{report:?}"),
            Err(error) => error.to_string(),
        };
        self.failed += 1;
        self.first_failure.get_or_insert(what);
    }

    /// What came since the last tick; begins the next.
    fn tick(&mut self, at_millis: u64) -> Report {
        self.micros.sort_unstable();
        let micros = self.micros.get(self.micros.len() / 2).copied().unwrap_or_default();
        let first_failure = self.first_failure.clone();
        let (v1, v2, failed) = (self.v1, self.v2, self.failed);
        *self = Counts { first_failure: first_failure.clone(), ..Counts::default() };
        Report::Tick { at_millis, v1, v2, failed, micros, first_failure }
    }
}

/// Runs the load until any other job arrives, reports every tick, and at last that it is over.
pub(crate) async fn run(
    outbound: SocketAddr,
    plan: Plan,
    jobs: &mut mpsc::Receiver<Job>,
    reports: &mpsc::Sender<Report>,
) -> Result<(), AnyError> {
    let begin = Instant::now();
    let over = Rc::new(Cell::new(false));
    let counts = Rc::new(RefCell::new(Counts::default()));
    let tick = || counts.borrow_mut().tick(since(begin) / 1000);
    let local = LocalSet::new();
    let mut senders = Vec::new();
    for connection in 0..plan.connections {
        let mut target = plan.target.clone();
        target.id = format!("{}-{connection}", target.id);
        let pause = Duration::from_millis(plan.pause_millis);
        senders.push(local.spawn_local(keep_asking(outbound, target, pause, over.clone(), counts.clone())));
    }
    local
        .run_until(async {
            let mut clock = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
            loop {
                tokio::select! {
                    biased;
                    _ = jobs.recv() => break,
                    _ = clock.tick() => reports.send(tick()).await?,
                }
            }
            over.set(true);
            for sender in senders {
                sender.await?;
            }
            reports.send(tick()).await?;
            Ok::<_, AnyError>(reports.send(Report::LoadOver).await?)
        })
        .await
}

async fn keep_asking(
    outbound: SocketAddr,
    mut target: Target,
    pause: Duration,
    over: Rc<Cell<bool>>,
    counts: Rc<RefCell<Counts>>,
) {
    let mut client = Client::new(outbound);
    let prefix = target.id.clone();
    let mut number = 0u64;
    while !over.get() {
        number += 1;
        target.id = format!("{prefix}-{number}");
        let outcome = client.ask(&target).await;
        counts.borrow_mut().count(outcome);
        tokio::time::sleep(pause).await;
    }
}
