//! Steady traffic on several connections, counted by the version that answered.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::{AnyError, Client, since};
use crate::job::{Report, Target};

const TICK: Duration = Duration::from_millis(250);

/// What to send and for how long; see [`crate::job::Job::Load`].
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) millis: u64,
    pub(crate) connections: usize,
    pub(crate) pause_millis: u64,
}

#[derive(Default)]
struct Counts {
    v1: u64,
    v2: u64,
    failed: u64,
    first_failure: Option<String>,
}

impl Counts {
    fn count(&mut self, outcome: Result<Report, AnyError>) {
        match outcome {
            Ok(Report::Answer { status: 200, who, .. }) if who.version == "v1" => self.v1 += 1,
            Ok(Report::Answer { status: 200, who, .. }) if who.version == "v2" => self.v2 += 1,
            other => {
                self.failed += 1;
                self.first_failure.get_or_insert_with(|| match other {
                    Ok(report) => format!("{report:?}"),
                    Err(error) => error.to_string(),
                });
            }
        }
    }
}

/// Runs the load, reports every tick, and at last that it is over.
pub(crate) async fn run(
    outbound: SocketAddr,
    plan: Plan,
    reports: &mpsc::Sender<Report>,
) -> Result<(), AnyError> {
    let begin = Instant::now();
    let end = begin + Duration::from_millis(plan.millis);
    let counts = Rc::new(RefCell::new(Counts::default()));
    let local = LocalSet::new();
    let mut senders = Vec::new();
    for connection in 0..plan.connections {
        let mut target = plan.target.clone();
        target.id = format!("{}-{connection}", target.id);
        let pause = Duration::from_millis(plan.pause_millis);
        senders.push(local.spawn_local(keep_asking(outbound, target, pause, end, counts.clone())));
    }
    local
        .run_until(async {
            let mut clock = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
            while Instant::now() < end {
                clock.tick().await;
                reports.send(tick(begin, &counts)).await?;
            }
            for sender in senders {
                sender.await?;
            }
            reports.send(tick(begin, &counts)).await?;
            Ok::<_, AnyError>(reports.send(Report::LoadOver).await?)
        })
        .await
}

fn tick(begin: Instant, counts: &RefCell<Counts>) -> Report {
    let mut counts = counts.borrow_mut();
    let Counts { v1, v2, failed, ref first_failure } = *counts;
    let report =
        Report::Tick { at_millis: since(begin) / 1000, v1, v2, failed, first_failure: first_failure.clone() };
    (counts.v1, counts.v2, counts.failed) = (0, 0, 0);
    report
}

async fn keep_asking(
    outbound: SocketAddr,
    mut target: Target,
    pause: Duration,
    end: Instant,
    counts: Rc<RefCell<Counts>>,
) {
    let mut client = Client::new(outbound);
    let prefix = target.id.clone();
    let mut number = 0u64;
    while Instant::now() < end {
        number += 1;
        target.id = format!("{prefix}-{number}");
        let outcome = client.ask(&target).await;
        counts.borrow_mut().count(outcome);
        tokio::time::sleep(pause).await;
    }
}
