//! What an operator does while traffic runs: new weights, a file with a mistake, a rollback, certificates that are
//! rotated, a control plane that is killed. No request may be lost in any of it.

use std::time::{Duration, Instant};

use super::{MESH_HOST, NLP, Shown, Stage, median, millis, off, target};
use crate::children::Failure;
use crate::control::{CONTROL, Status};
use crate::job::{Job, Report};
use crate::mesh::SIDECARS;
use crate::table::Table;

/// Each split is looked at until it has shown this much.
const ENOUGH_ANSWERS: u64 = 400;
/// Of 400 requests: five standard deviations.
const TOLERANCE: f64 = 0.1;
/// A machine that has not shown a thing by then has something else wrong.
const PATIENCE: Duration = Duration::from_secs(60);
/// The agent that is killed.
const KILLED: &str = "nlp-v1-b";
/// How long the mesh runs without its control plane, or without an agent.
const ALONE: Duration = Duration::from_secs(2);

/// What the load has shown since it was last asked.
#[derive(Default)]
struct Part {
    v1: u64,
    v2: u64,
    micros: Vec<u64>,
}

impl Part {
    fn all(&self) -> u64 {
        self.v1 + self.v2
    }

    fn share_of_v1(&self) -> f64 {
        self.v1 as f64 / self.all().max(1) as f64
    }
}

/// One thing that was done, and what it came to.
struct Done {
    what: &'static str,
    result: String,
    took: Duration,
}

/// The table as it grows.
struct Log {
    table: Table,
    total: u64,
    /// What was said about the mistake.
    refused: Option<Shown>,
}

impl Log {
    fn add(&mut self, done: Done, mut part: Part) {
        self.total += part.all();
        let Done { what, result, took } = done;
        let took = format!("{:.0} ms", took.as_secs_f64() * 1000.0);
        let meanwhile = format!("{} requests, {} median", part.all(), millis(median(&mut part.micros)));
        self.table.rows.push([what.to_string(), result, meanwhile, "0".to_string(), took]);
    }
}

impl Stage<'_> {
    /// The table of what was done under traffic, what was said about the mistake, and a sentence about it all.
    pub(super) async fn operate(
        &mut self,
        progress: impl Fn(&str),
    ) -> Result<(Table, Option<Shown>, String), Failure> {
        let mut target = target(MESH_HOST, "/", &[NLP]);
        target.id = self.next_id();
        self.mesh.order(&Job::Load { target, connections: 8, pause_millis: 5 }).await?;
        let headings = ["DONE WHILE TRAFFIC RAN", "RESULT", "MEANWHILE", "LOST", "TOOK"];
        let mut log =
            Log { table: Table { headings, verdict: 3, rows: Vec::new() }, total: 0, refused: None };
        progress("traffic on 8 connections from here on; the weights are changed by pilotfish apply --wait");
        let before = self.split_of(0.8).await?;
        let took = Duration::from_millis(0);
        log.add(Done { what: "nothing yet: weights 80/20", result: percent(&before), took }, before);
        self.reweigh(&mut log).await?;
        progress("a file with a mistake, then a rollback");
        self.mistake(&mut log).await?;
        self.roll_back(&mut log).await?;
        progress("an agent is killed, and started again");
        self.agent_dies(&mut log).await?;
        progress("certificates live for 30 s here: waiting until every sidecar has a new one");
        self.rotation(&mut log).await?;
        progress("kill -9 of the control plane, 2 s without it, and its start on the same data");
        self.control_plane_dies(&mut log).await?;
        self.mesh.order(&Job::StopLoad).await?;
        log.total += self.rest().await?.all();
        let closing =
            format!("{} requests ran over mutual TLS through all of this, and 0 were lost.", log.total);
        Ok((log.table, log.refused, closing))
    }

    async fn reweigh(&mut self, log: &mut Log) -> Result<(), Failure> {
        let file = self.mesh.rules_with_weights(20, 80)?;
        let begin = Instant::now();
        self.mesh.control.cli(&["apply", "-f", &file, "--wait=30s"]).await?;
        let took = begin.elapsed();
        let during = self.since().await?;
        let after = self.split_of(0.2).await?;
        let result = format!("served by all {SIDECARS} sidecars; {}", percent(&after));
        log.add(Done { what: "apply --wait: weights 20/80", result, took }, join(during, after));
        Ok(())
    }

    async fn mistake(&mut self, log: &mut Log) -> Result<(), Failure> {
        let file = self.mesh.rules_with_a_mistake()?;
        let before = self.mesh.control.status().await?.documents;
        let begin = Instant::now();
        let output = self.mesh.control.try_cli(&["apply", "-f", &file]).await?;
        let took = begin.elapsed();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let line = said.lines().find_map(|line| line.split_once("mistake.yaml:"));
        let place = line.and_then(|(_, rest)| rest.split_once(": "));
        let Some((place, _)) = place.filter(|_| !output.status.success()) else {
            return Err(Failure::of(
                CONTROL,
                format!("a file with a mistake was not refused by its line: {said}"),
            ));
        };
        if self.mesh.control.status().await?.documents != before {
            return Err(Failure::of(CONTROL, "a refused file made a new version"));
        }
        let result = format!("refused at mistake.yaml:{place}, nothing changed");
        let part = self.since().await?;
        let folder = file.strip_suffix("mistake.yaml").unwrap_or_default();
        let output = said.replace(folder, "");
        log.refused = Some(Shown { line: "pilotfish apply -f mistake.yaml".to_string(), output });
        log.add(Done { what: "apply: a file with a mistake", result, took }, part);
        Ok(())
    }

    async fn roll_back(&mut self, log: &mut Log) -> Result<(), Failure> {
        let newest = self.mesh.control.status().await?.documents;
        let begin = Instant::now();
        self.mesh.control.cli(&["rollback", &(newest - 1).to_string(), "--wait=30s"]).await?;
        let took = begin.elapsed();
        let during = self.since().await?;
        let after = self.split_of(0.8).await?;
        let result = format!("version {} is as {} was; {}", newest + 1, newest - 1, percent(&after));
        log.add(Done { what: "rollback --wait", result, took }, join(during, after));
        Ok(())
    }

    /// Calls are only asked for again where the rule lets them be: reads may be, when an agent breaks off.
    async fn agent_dies(&mut self, log: &mut Log) -> Result<(), Failure> {
        let file = self.mesh.rules_with_retries()?;
        let begin = Instant::now();
        self.mesh.control.cli(&["apply", "-f", &file, "--wait=30s"]).await?;
        let part = self.since().await?;
        let result = format!("served by all {SIDECARS} sidecars");
        log.add(Done { what: "apply --wait: retries on reset", result, took: begin.elapsed() }, part);
        let begin = Instant::now();
        self.mesh.kill_agent(KILLED).await?;
        let mut without = Part::default();
        while begin.elapsed() < ALONE {
            self.tick(&mut without).await?;
        }
        let result = format!("{KILLED} is gone, the others answer");
        log.add(Done { what: "kill -9 of an agent", result, took: begin.elapsed() }, without);
        let begin = Instant::now();
        self.mesh.restart_agent(KILLED).await?;
        let well = |status: &Status| status.sidecars.iter().all(|one| one.status == "ready");
        let (_, part) = self.until("every agent is well again", well).await?;
        let part = join(part, self.since().await?);
        let result = "all agents are ready".to_string();
        log.add(Done { what: "agent started again", result, took: begin.elapsed() }, part);
        Ok(())
    }

    async fn rotation(&mut self, log: &mut Log) -> Result<(), Failure> {
        let expiry = |status: &Status| -> Vec<(String, u64)> {
            let ends = status.sidecars.iter();
            ends.map(|one| (one.instance.clone(), one.certificate_expires.unwrap_or_default())).collect()
        };
        let before = expiry(&self.mesh.control.status().await?);
        let renewed = move |status: &Status| {
            let now = expiry(status);
            before.iter().all(|(instance, old)| now.iter().any(|(same, new)| same == instance && new > old))
        };
        let (took, part) = self.until("every certificate was renewed", renewed).await?;
        let result = format!("{SIDECARS} new certificates, no connection closed for it");
        log.add(Done { what: "certificates rotated", result, took }, part);
        Ok(())
    }

    async fn control_plane_dies(&mut self, log: &mut Log) -> Result<(), Failure> {
        let begin = Instant::now();
        self.mesh.control.kill(&mut self.mesh.children).await?;
        let mut alone = Part::default();
        while begin.elapsed() < ALONE {
            self.tick(&mut alone).await?;
        }
        let result = "every sidecar serves what it last got".to_string();
        log.add(Done { what: "kill -9 of the control plane", result, took: begin.elapsed() }, alone);
        let begin = Instant::now();
        self.mesh.control.restart(&mut self.mesh.children).await?;
        let back = |status: &Status| {
            let well = |one: &&crate::control::SidecarStatus| one.connected && one.status == "ready";
            status.sidecars.iter().filter(well).count() == SIDECARS
        };
        let (_, part) = self.until("every sidecar is connected again", back).await?;
        let result = format!("all {SIDECARS} sidecars connected again");
        log.add(Done { what: "control plane started again", result, took: begin.elapsed() }, part);
        Ok(())
    }

    /// Runs the load until the control plane says what is waited for.
    async fn until(
        &mut self,
        what: &str,
        holds: impl Fn(&Status) -> bool,
    ) -> Result<(Duration, Part), Failure> {
        let begin = Instant::now();
        let mut part = Part::default();
        while begin.elapsed() < PATIENCE {
            let status = self.mesh.control.status().await?;
            if holds(&status) {
                return Ok((begin.elapsed(), part));
            }
            self.tick(&mut part).await?;
        }
        Err(Failure::of(CONTROL, format!("not within {PATIENCE:?}: {what}")))
    }

    /// Runs the load until a whole look at it shows this share of v1.
    async fn split_of(&mut self, wanted: f64) -> Result<Part, Failure> {
        let begin = Instant::now();
        let mut seen = Part::default();
        while begin.elapsed() < PATIENCE {
            let mut part = Part::default();
            while part.all() < ENOUGH_ANSWERS {
                self.tick(&mut part).await?;
            }
            let share = part.share_of_v1();
            if (share - wanted).abs() <= TOLERANCE {
                return Ok(part);
            }
            seen = part;
        }
        Err(off(format!("v1 should get {wanted} of the traffic: {}", percent(&seen))))
    }

    /// What the load did while something else was waited for.
    async fn since(&mut self) -> Result<Part, Failure> {
        let mut part = Part::default();
        self.tick(&mut part).await?;
        Ok(part)
    }

    /// Takes in the next tick.
    async fn tick(&mut self, part: &mut Part) -> Result<(), Failure> {
        let report = self.mesh.report().await?;
        if self.take(part, report)? { Ok(()) } else { Err(off("the load ended early")) }
    }

    /// The last ticks, after the load was told to stop.
    async fn rest(&mut self) -> Result<Part, Failure> {
        let mut part = Part::default();
        loop {
            let report = self.mesh.report().await?;
            if !self.take(&mut part, report)? {
                return Ok(part);
            }
        }
    }

    fn take(&self, part: &mut Part, report: Report) -> Result<bool, Failure> {
        match report {
            Report::LoadOver => Ok(false),
            Report::Tick { v1, v2, failed: 0, micros, .. } => {
                part.v1 += v1;
                part.v2 += v2;
                part.micros.push(micros);
                Ok(true)
            }
            Report::Tick { failed, first_failure, .. } => {
                let what = first_failure.unwrap_or_default();
                Err(off(format!("{failed} requests were lost: {what}")))
            }
            other => Err(off(format!("the load reported {other:?}"))),
        }
    }
}

fn percent(part: &Part) -> String {
    let v1 = (part.share_of_v1() * 100.0).round();
    format!("v1 {v1}%, v2 {}%", 100.0 - v1)
}

fn join(mut first: Part, second: Part) -> Part {
    first.v1 += second.v1;
    first.v2 += second.v2;
    first.micros.extend(second.micros);
    first
}
