//! Agents that the control plane starts: a machine joins, agents run there, one comes when it is asked for.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{CAPABILITY, PATIENCE, Row, Shown, Stage, ensure, row, target};
use crate::children::Failure;
use crate::control::CONTROL;

/// How long one look waits for the next.
const AGAIN: Duration = Duration::from_millis(50);

/// What `pilotfish placement -o json` says, as far as the demo looks.
#[derive(Debug, Deserialize)]
struct Placement {
    agents: Vec<Agent>,
    replicas: Vec<serde_json::Value>,
}

/// One agent of [`Placement`].
#[derive(Debug, Deserialize)]
struct Agent {
    group: String,
    wanted: u32,
    ready: u32,
    reason: Option<String>,
}

impl Stage<'_> {
    /// A node, agents on it, and what the control plane says of them.
    pub(super) async fn placed(&mut self) -> Result<(Vec<Row>, Vec<Shown>), Failure> {
        self.mesh.start_node().await?;
        let begin = Instant::now();
        self.mesh.apply_placed().await?;
        self.until_placed("default/painter", |own| own.ready == 2 && own.wanted == 2).await?;
        // Nobody could do it when it was asked for above; a moment after it is ready every sidecar knows it.
        let wanted = target("any-agent", "/", &[(CAPABILITY, "image_generation")]);
        while self.ask(wanted.clone()).await?.status != 200 && begin.elapsed() < PATIENCE {
            tokio::time::sleep(AGAIN).await;
        }
        let took = begin.elapsed();
        let answers = self.ask_often(&wanted, 2).await?;
        for answer in &answers {
            ensure(answer.who.agent == "painter", "agent-capability: image_generation, placed", answer)?;
        }
        let mut painted = row("the same, from agents that the control plane started", &answers);
        painted.time = format!("{:.0} ms from apply to the first answer", took.as_secs_f64() * 1000.0);
        // None of it runs until somebody asks.
        let answer = self.ask(target("any-agent", "/", &[(CAPABILITY, "archive_search")])).await?;
        let found = answer.status == 200 && answer.who.agent == "archivist";
        ensure(found, "agent-capability: archive_search, started when asked for", &answer)?;
        let mut searched = row("agent-capability: archive_search, which waits for its agent", &[answer]);
        searched.time.push_str(", its start included");
        let mut shown = Vec::new();
        for arguments in [&["nodes"][..], &["placement", "--replicas"]] {
            let output = self.mesh.control.cli(arguments).await?;
            shown.push(Shown { line: format!("pilotfish {}", arguments.join(" ")), output });
        }
        Ok((vec![painted, searched], shown))
    }

    async fn until_placed(&self, group: &str, holds: impl Fn(&Agent) -> bool) -> Result<(), Failure> {
        let begin = Instant::now();
        loop {
            let text = self.mesh.control.cli(&["placement", "-o", "json"]).await?;
            let seen: Placement = serde_json::from_str(&text)
                .map_err(|error| Failure::of(CONTROL, format!("{error}: {text}")))?;
            let own = seen.agents.iter().find(|agent| agent.group == group);
            if own.is_some_and(&holds) {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                let why = own.and_then(|own| own.reason.clone()).unwrap_or_default();
                let replicas = seen.replicas.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
                return Err(Failure::of(CONTROL, format!("{group} is not ready: {why}\n{replicas}")));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
