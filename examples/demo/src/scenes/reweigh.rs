//! Traffic that goes on while a weight is edited in the YAML: the split follows, and no request fails.

use super::{AFFINITY, MESH_HOST, NLP, Stage, off, target};
use crate::children::Failure;
use crate::job::{Job, Report};
use crate::table::Row;

const LOAD_MILLIS: u64 = 6_000;
const EDIT_AT_MILLIS: u64 = 2_000;
/// From here on the new weights must hold: the sidecar may wait for the folder to fall quiet before it reads it.
const SETTLED_AT_MILLIS: u64 = 4_000;
/// With over a thousand requests in each part, ten points are more than five standard deviations.
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

impl Stage<'_> {
    /// Two rows: before and after the edit.
    pub(super) async fn reweigh(&mut self) -> Result<[Row; 2], Failure> {
        let mut target = target(MESH_HOST, "/", &[NLP]);
        debug_assert!(target.headers.iter().all(|(name, _)| name != AFFINITY), "a key would pin the split");
        target.id = self.next_id();
        let first_id = format!("{}-0-1", target.id);
        let load = Job::Load { target, millis: LOAD_MILLIS, connections: 8, pause_millis: 5 };
        self.mesh.order(&load).await?;
        let (mut before, mut after) = (Part::default(), Part::default());
        let (mut total, mut edited_at, mut followed_at) = (0, None, None);
        loop {
            let (at, part) = match self.mesh.report().await? {
                Report::LoadOver => break,
                Report::Tick { at_millis, v1, v2, failed: 0, .. } => (at_millis, Part { v1, v2 }),
                Report::Tick { failed, first_failure, .. } => {
                    let what = first_failure.unwrap_or_default();
                    return Err(off(format!("{failed} requests failed while a weight was edited: {what}")));
                }
                other => return Err(off(format!("the load reported {other:?}"))),
            };
            total += part.all();
            match edited_at {
                None => before = before + part,
                Some(edited) => {
                    if followed_at.is_none() && part.all() > 0 && part.share_of_v1() < 0.5 {
                        followed_at = Some(at - edited);
                    }
                    if at > SETTLED_AT_MILLIS {
                        after = after + part;
                    }
                }
            }
            if edited_at.is_none() && at >= EDIT_AT_MILLIS {
                self.mesh.set_weights(20, 80)?;
                edited_at = Some(at);
            }
        }
        self.rows(&first_id, before, after, (total, followed_at)).await
    }

    async fn rows(
        &mut self,
        first_id: &str,
        before: Part,
        after: Part,
        (total, followed_at): (u64, Option<u64>),
    ) -> Result<[Row; 2], Failure> {
        for (part, wanted) in [(before, 0.8), (after, 0.2)] {
            if part.all() < 500 || (part.share_of_v1() - wanted).abs() > TOLERANCE {
                let (seen, all) = (part.percent(), part.all());
                return Err(off(format!("v1 should get {wanted} of the traffic: {seen} of {all} requests")));
            }
        }
        let rule = self.mesh.log.find(first_id).await?.rule.unwrap_or_default();
        let followed = followed_at.ok_or_else(|| off("the split never followed the edited weights"))?;
        let row = |asked: &str, went_to: String, time: String| Row {
            asked: asked.to_string(),
            rule: rule.clone(),
            went_to,
            status: "200".to_string(),
            time,
        };
        Ok([
            row(
                "8 connections keep asking, weights 80/20",
                before.percent(),
                format!("{} requests", before.all()),
            ),
            row(
                "the same, after the YAML said 20/80",
                after.percent(),
                format!("within {followed} ms; {total} requests, 0 failed"),
            ),
        ])
    }
}

impl std::ops::Add for Part {
    type Output = Part;
    fn add(self, other: Part) -> Part {
        Part { v1: self.v1 + other.v1, v2: self.v2 + other.v2 }
    }
}
