//! Traffic that goes on while a weight is edited in the YAML: the split follows, and no request fails.

use super::{MESH_HOST, NLP, Stage, median, millis, off, target};
use crate::children::Failure;
use crate::job::{Job, Report};
use crate::table::Row;

/// Each part lasts until it has shown this much; on an idle machine that takes no longer than [`ENOUGH_MILLIS`].
const ENOUGH_ANSWERS: u64 = 400;
const ENOUGH_MILLIS: u64 = 2_000;
/// A machine that has not shown it by then has something else wrong.
const PATIENCE_MILLIS: u64 = 40_000;
/// Of 400 requests: five standard deviations.
const TOLERANCE: f64 = 0.1;

/// Answers by version, and how many of them.
#[derive(Default, Clone, Copy)]
struct Part {
    v1: u64,
    v2: u64,
}

impl Part {
    fn all(self) -> u64 {
        self.v1 + self.v2
    }

    fn share_of_v1(self) -> f64 {
        self.v1 as f64 / self.all().max(1) as f64
    }

    fn percent(self) -> String {
        let v1 = (self.share_of_v1() * 100.0).round();
        format!("v1 {v1}%, v2 {}%", 100.0 - v1)
    }
}

/// What the load has shown so far.
#[derive(Default)]
struct Watch {
    before: Part,
    after: Part,
    total: u64,
    edited_at: Option<u64>,
    /// When a tick first showed the new weights.
    followed_at: Option<u64>,
    micros: [Vec<u64>; 2],
}

/// What a tick asks for.
enum Next {
    Wait,
    Edit,
    Stop,
}

impl Watch {
    /// Takes in one tick.
    fn see(&mut self, at: u64, part: Part, micros: u64) -> Next {
        self.total += part.all();
        let enough = |part: Part, since: u64| part.all() >= ENOUGH_ANSWERS && at - since >= ENOUGH_MILLIS;
        match (self.edited_at, self.followed_at) {
            (None, _) => {
                self.before = self.before + part;
                self.micros[0].push(micros);
                if enough(self.before, 0) {
                    self.edited_at = Some(at);
                    return Next::Edit;
                }
            }
            (Some(_), None) if part.all() > 0 && part.share_of_v1() < 0.5 => self.followed_at = Some(at),
            (Some(_), None) => {}
            (Some(_), Some(followed)) => {
                self.after = self.after + part;
                self.micros[1].push(micros);
                if enough(self.after, followed) {
                    return Next::Stop;
                }
            }
        }
        if at > PATIENCE_MILLIS { Next::Stop } else { Next::Wait }
    }
}

impl Stage<'_> {
    /// Two rows, before and after the edit, and what was seen in between.
    pub(super) async fn reweigh(&mut self) -> Result<([Row; 2], String), Failure> {
        let mut target = target(MESH_HOST, "/", &[NLP]);
        target.id = self.next_id();
        let first_id = format!("{}-0-1", target.id);
        self.mesh.order(&Job::Load { target, connections: 8, pause_millis: 5 }).await?;
        let mut watch = Watch::default();
        loop {
            let next = match self.mesh.report().await? {
                Report::LoadOver => break,
                Report::Tick { at_millis, v1, v2, failed: 0, micros, .. } => {
                    watch.see(at_millis, Part { v1, v2 }, micros)
                }
                Report::Tick { failed, first_failure, .. } => {
                    let what = first_failure.unwrap_or_default();
                    return Err(off(format!("{failed} requests failed while a weight was edited: {what}")));
                }
                other => return Err(off(format!("the load reported {other:?}"))),
            };
            match next {
                Next::Wait => {}
                Next::Edit => self.mesh.set_weights(20, 80)?,
                Next::Stop => self.mesh.order(&Job::StopLoad).await?,
            }
        }
        self.rows(&first_id, watch).await
    }

    async fn rows(&mut self, first_id: &str, watch: Watch) -> Result<([Row; 2], String), Failure> {
        let (Some(edited), Some(followed)) = (watch.edited_at, watch.followed_at) else {
            return Err(off("the split never followed the edited weights"));
        };
        let Watch { before, after, total, micros: [mut first, mut second], .. } = watch;
        for (part, wanted) in [(before, 0.8), (after, 0.2)] {
            if part.all() < ENOUGH_ANSWERS || (part.share_of_v1() - wanted).abs() > TOLERANCE {
                let (seen, all) = (part.percent(), part.all());
                return Err(off(format!("v1 should get {wanted} of the traffic: {seen} of {all} requests")));
            }
        }
        let rule = self.mesh.log.find(first_id).await?.rule_or_none();
        let row = |asked: &str, part: Part, micros: &mut [u64]| Row {
            asked: asked.to_string(),
            rule: rule.clone(),
            went_to: part.percent(),
            status: "200".to_string(),
            time: format!("{} median", millis(median(micros))),
        };
        let rows = [
            row("traffic on 8 connections, 80/20", before, &mut first),
            row("the same, after an edit to 20/80", after, &mut second),
        ];
        let followed = followed - edited;
        let closing = format!(
            "The weights were edited in the YAML under traffic: {total} requests, 0 failed, and the split followed within {followed} ms."
        );
        Ok((rows, closing))
    }
}

impl std::ops::Add for Part {
    type Output = Part;
    fn add(self, other: Part) -> Part {
        Part { v1: self.v1 + other.v1, v2: self.v2 + other.v2 }
    }
}
