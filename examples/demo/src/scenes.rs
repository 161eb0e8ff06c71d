//! What is shown, one function a row of the table. Each checks what it claims: a row that would be untrue is a failure.

mod guarded;
mod operate;
mod placed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::access_log::Entry;
use crate::children::Failure;
use crate::job::{Job, Report, Target, Whoami};
use crate::mesh::{CALLER, Mesh, sidecar_of};
use crate::table::Table;

/// The host of `agent-service-mesh.yaml`.
const MESH_HOST: &str = "agent-communication";
const NLP: (&str, &str) = ("agent-type", "nlp-agent");
const STREAMING: (&str, &str) = ("communication-pattern", "streaming");
const AFFINITY: &str = "agent-affinity-key";
const CAPABILITY: &str = "agent-capability";
/// Requests of the split: 80 % of 200 is 160, give or take 17 (three standard deviations).
const SPLIT_REQUESTS: usize = 200;
/// The workflow of the traced question.
const RESEARCH: &str = "demo-research";
/// A trace is whole by then, on any machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Five standard deviations of a fair 80/20 draw over [`SPLIT_REQUESTS`]: what a healthy split misses once in a million runs.
const SPLIT_TOLERANCE: f64 = 0.141;

/// One call, or several of the same kind.
struct Row {
    /// In words and header names.
    asked: String,
    /// As the sidecar's access log names it.
    rule: String,
    /// Which agents answered, how often.
    went_to: String,
    /// HTTP status, or several.
    status: String,
    /// How long it took.
    time: String,
}

/// A command that was run, as a person would have typed it.
pub struct Shown {
    /// The command.
    pub line: String,
    /// What it printed.
    pub output: String,
}

/// Everything that there is to see.
pub struct Show {
    /// Calls and where they went.
    pub calls: Table,
    /// What was done to the mesh while traffic ran.
    pub operations: Table,
    /// What the control plane says about it.
    pub commands: Vec<Shown>,
    /// One sentence.
    pub closing: String,
}

/// Plays every scene in order.
///
/// # Errors
/// At the first thing that is not as it should be.
pub async fn all(mesh: &mut Mesh, progress: impl Fn(&str)) -> Result<Show, Failure> {
    let mut stage = Stage { mesh, asked: 0 };
    progress("one request by header, then 200 over the 80/20 split");
    let mut rows = vec![stage.header_match().await?, stage.split().await?];
    progress("eight conversations of 15 requests each");
    rows.push(stage.conversations().await?);
    progress("agents asked for by what they can do");
    rows.push(stage.capability().await?);
    rows.push(stage.nobody_can().await?);
    rows.push(stage.no_rule().await?);
    progress("a token stream and a WebSocket");
    rows.push(stage.stream().await?);
    rows.push(stage.websocket().await?);
    progress("a booking, asked for twice with one idempotency-key");
    rows.push(stage.booking().await?);
    let (operations, refused, closing) = stage.operate(&progress).await?;
    let mut commands: Vec<Shown> = refused.into_iter().collect();
    commands.extend(stage.commands().await?);
    progress("one question that two agents work on, and its trace");
    commands.push(stage.trace().await?);
    progress("a node, agents that the control plane starts there, one of them when it is asked for");
    let (placed, said) = stage.placed().await?;
    rows.extend(placed);
    commands.extend(said);
    progress(
        "policies: what is refused and why, an agent that is cut off, and one edited byte of the record",
    );
    let (guarded, said) = stage.guarded().await?;
    rows.extend(guarded);
    commands.extend(said);
    stage.mesh.children.all_alive()?;
    let cells = |row: Row| [row.asked, row.rule, row.went_to, row.status, row.time];
    let headings = ["ASKED", "RULE", "WENT TO", "STATUS", "TIME"];
    let calls = Table { headings, verdict: 3, rows: rows.into_iter().map(cells).collect() };
    Ok(Show { calls, operations, commands, closing })
}

/// The mesh, and how many requests went into it.
struct Stage<'a> {
    mesh: &'a mut Mesh,
    asked: u64,
}

/// One answered request, and what the sidecar's access log says about it.
struct Answer {
    status: u16,
    reason: Option<String>,
    who: Whoami,
    micros: u64,
    arrivals: Vec<u64>,
    booking: Option<String>,
    logged: Entry,
}

impl Stage<'_> {
    async fn header_match(&mut self) -> Result<Row, Failure> {
        let answer = self.ask(target(MESH_HOST, "/", &[STREAMING])).await?;
        ensure(answer.who.agent == "streaming-agent", "communication-pattern: streaming", &answer)?;
        Ok(row("communication-pattern: streaming", &[answer]))
    }

    async fn split(&mut self) -> Result<Row, Failure> {
        let answers = self.ask_often(&target(MESH_HOST, "/", &[NLP]), SPLIT_REQUESTS).await?;
        let v1 = answers.iter().filter(|answer| answer.who.version == "v1").count();
        let share = v1 as f64 / SPLIT_REQUESTS as f64;
        if (share - 0.8).abs() > SPLIT_TOLERANCE {
            return Err(off(format!("the 80/20 split sent {v1} of {SPLIT_REQUESTS} requests to v1")));
        }
        let mut row = row(&format!("agent-type: nlp-agent, {SPLIT_REQUESTS} times"), &answers);
        row.went_to = format!("v1 {v1}, v2 {}", SPLIT_REQUESTS - v1);
        Ok(row)
    }

    async fn conversations(&mut self) -> Result<Row, Failure> {
        let (conversations, turns) = (8, 15);
        let mut agents = BTreeSet::new();
        let mut answers = Vec::new();
        for conversation in 0..conversations {
            let key = format!("conversation-{conversation}");
            let same = target(MESH_HOST, "/", &[NLP, (AFFINITY, &key)]);
            let turns = self.ask_often(&same, turns).await?;
            let first = turns[0].who.agent.clone();
            if let Some(stray) = turns.iter().find(|turn| turn.who.agent != first) {
                return Err(off(format!("{key} went to {first} and then to {}", stray.who.agent)));
            }
            agents.insert(first);
            answers.extend(turns);
        }
        let mut row = row(&format!("{AFFINITY}: {conversations} keys, {turns} times each"), &answers);
        row.went_to = format!("one agent a key, {} in all", agents.len());
        Ok(row)
    }

    async fn capability(&mut self) -> Result<Row, Failure> {
        let wanted = target("any-agent", "/", &[(CAPABILITY, "sentiment_analysis")]);
        let answers = self.ask_often(&wanted, 20).await?;
        if let Some(wrong) = answers.iter().find(|answer| answer.who.version != "v2") {
            ensure(false, "agent-capability: sentiment_analysis, which only v2 has", wrong)?;
        }
        Ok(row("agent-capability: sentiment_analysis", &answers))
    }

    async fn nobody_can(&mut self) -> Result<Row, Failure> {
        let wanted = target("any-agent", "/", &[(CAPABILITY, "image_generation")]);
        let answer = self.ask(wanted).await?;
        let refused = answer.status == 503 && answer.reason.as_deref() == Some("nobody-qualifies");
        ensure(refused, "agent-capability: image_generation, which nobody has", &answer)?;
        Ok(row("agent-capability: image_generation", &[answer]))
    }

    async fn no_rule(&mut self) -> Result<Row, Failure> {
        let answer = self.ask(target(MESH_HOST, "/", &[])).await?;
        let refused = answer.status == 404 && answer.reason.as_deref() == Some("no-route");
        ensure(refused, "a request that no rule matches", &answer)?;
        Ok(row("no header that a rule asks for", &[answer]))
    }

    async fn stream(&mut self) -> Result<Row, Failure> {
        let (tokens, gap) = (20u64, 50);
        let path = format!("/stream?tokens={tokens}&gap_ms={gap}");
        let answer = self.ask(target(MESH_HOST, &path, &[STREAMING])).await?;
        ensure(answer.status == 200, "a token stream", &answer)?;
        let mut gaps: Vec<u64> = answer.arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (pieces, middle) = (answer.arrivals.len(), median(&mut gaps));
        // Tokens that were held back arrive together. One or two may meet on a busy machine, not most of them.
        if pieces < 15 || middle < gap * 1000 / 2 {
            return Err(off(format!(
                "{tokens} tokens {gap} ms apart came in {pieces} pieces, {middle} us apart"
            )));
        }
        let (shortest, longest) = (gaps[0] / 1000, gaps[gaps.len() - 1].div_ceil(1000));
        let first = millis(answer.arrivals[0]);
        let mut row = row(&format!("/stream: {tokens} tokens, {gap} ms apart"), &[answer]);
        row.time = format!("{first}, then every {shortest}-{longest} ms");
        Ok(row)
    }

    async fn websocket(&mut self) -> Result<Row, Failure> {
        let mut target = target(MESH_HOST, "/ws", &[STREAMING]);
        target.id = self.next_id();
        let id = target.id.clone();
        let say = ["hello", "is anybody there?", "good bye"].map(str::to_string).to_vec();
        self.mesh.order(&Job::WebSocket { target, say }).await?;
        let report = self.mesh.report().await?;
        let Report::Echo { status: 101, mut round_trips, clean_close: true } = report else {
            return Err(off(format!("the WebSocket echo reported {report:?}")));
        };
        let logged = self.mesh.log.find(&id).await?;
        Ok(Row {
            asked: format!("/ws: WebSocket, {} messages echoed", round_trips.len()),
            rule: logged.rule_or_none(),
            went_to: "streaming-agent".to_string(),
            status: "101".to_string(),
            time: format!("{} a round trip", millis(median(&mut round_trips))),
        })
    }

    /// The agent books when it is asked; its sidecar does not ask it twice.
    async fn booking(&mut self) -> Result<Row, Failure> {
        let headers = [NLP, (AFFINITY, "a traveller"), ("idempotency-key", "flight-to-lisbon")];
        let book = Target { post: true, ..target(MESH_HOST, "/book", &headers) };
        let answers = [self.ask(book.clone()).await?, self.ask(book).await?];
        for answer in &answers {
            ensure(answer.status == 201, "POST /book", answer)?;
        }
        let [first, second] = &answers;
        if first.booking.is_none() || first.booking != second.booking || first.who != second.who {
            return Err(off(format!(
                "one key made the bookings {:?} of {} and {:?} of {}",
                first.booking, first.who.agent, second.booking, second.who.agent
            )));
        }
        let mut row = row("POST /book, twice with one idempotency-key", &answers);
        row.went_to = format!(
            "{}, done once: both got number {}",
            first.who.agent,
            first.booking.as_deref().unwrap_or_default()
        );
        Ok(row)
    }

    /// What the control plane says of the mesh when all is done.
    async fn commands(&self) -> Result<Vec<Shown>, Failure> {
        let asked =
            [&["status"][..], &["agents", "--capability", "natural_language_understanding"], &["history"]];
        let mut shown = Vec::new();
        for arguments in asked {
            let output = self.mesh.control.cli(arguments).await?;
            shown.push(Shown { line: format!("pilotfish {}", arguments.join(" ")), output });
        }
        Ok(shown)
    }

    /// The agent in the middle passes no header on; its sidecar knows what the call belongs to.
    async fn trace(&mut self) -> Result<Shown, Failure> {
        // Of the traffic before it ten traces a second were kept; this one begins when there is room again.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let answer = self.ask(target(MESH_HOST, "/research", &[NLP, ("agent-workflow", RESEARCH)])).await?;
        ensure(answer.status == 200, "/research", &answer)?;
        let begin = Instant::now();
        loop {
            let found = self.mesh.control.cli(&["traces", "--workflow", RESEARCH, "-o", "json"]).await?;
            let found: Value = serde_json::from_str(&found).map_err(|error| off(error.to_string()))?;
            let newest = &found[0];
            // Sidecars send their spans within a second or two, each by itself.
            if newest["agents"].as_u64() >= Some(3) && newest["spans"].as_u64() >= Some(8) {
                let id = newest["trace"].as_str().unwrap_or_default();
                let output = self.mesh.control.cli(&["trace", id]).await?;
                return Ok(Shown { line: format!("pilotfish trace {id}"), output });
            }
            if begin.elapsed() > PATIENCE {
                return Err(off(format!("the trace of /research is not whole: {found}")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn next_id(&mut self) -> String {
        self.asked += 1;
        format!("demo-{}", self.asked)
    }

    async fn ask(&mut self, mut target: Target) -> Result<Answer, Failure> {
        target.id = self.next_id();
        let id = target.id.clone();
        self.mesh.order(&Job::Ask { target }).await?;
        match self.mesh.report().await? {
            Report::Answer { status, reason, who, micros, arrivals, booking } => {
                let logged = self.mesh.log.find(&id).await?;
                if logged.status != status {
                    return Err(off(format!("{id} got {status}, but its access log says {}", logged.status)));
                }
                Ok(Answer { status, reason, who, micros, arrivals, booking, logged })
            }
            other => Err(off(format!("asked for an answer, was told {other:?}"))),
        }
    }

    async fn ask_often(&mut self, target: &Target, times: usize) -> Result<Vec<Answer>, Failure> {
        let mut answers = Vec::with_capacity(times);
        for _ in 0..times {
            let answer = self.ask(target.clone()).await?;
            ensure(answer.status == 200, &format!("{:?}", target.headers), &answer)?;
            answers.push(answer);
        }
        Ok(answers)
    }
}

fn target(host: &str, path: &str, headers: &[(&str, &str)]) -> Target {
    let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Target { host: host.to_string(), path: path.to_string(), headers, ..Target::default() }
}

fn off(what: impl Into<String>) -> Failure {
    Failure::of(&sidecar_of(CALLER), what)
}

fn ensure(holds: bool, what: &str, answer: &Answer) -> Result<(), Failure> {
    if holds {
        return Ok(());
    }
    let Answer { status, reason, who, .. } = answer;
    let reason = reason.as_deref().unwrap_or("none");
    Err(off(format!(
        "{what}: answered with {status}, pilotfish-reason {reason}, by agent {:?} {:?}",
        who.agent, who.version
    )))
}

/// One row for answers that were asked for in the same way.
fn row(asked: &str, answers: &[Answer]) -> Row {
    let mut agents = BTreeMap::<&str, usize>::new();
    let mut rules = Vec::new();
    let mut statuses = Vec::new();
    for answer in answers {
        *agents.entry(&answer.who.agent).or_default() += 1;
        push_new(&mut rules, answer.logged.rule_or_none());
        push_new(&mut statuses, answer.status.to_string());
    }
    let refused = answers.iter().find_map(|answer| answer.reason.clone());
    let went_to = match (refused, agents.len()) {
        (Some(reason), _) => format!("refused: {reason}"),
        (None, 1) => agents.into_keys().collect(),
        (None, _) => {
            let counted: Vec<_> = agents.iter().map(|(agent, count)| format!("{agent} {count}")).collect();
            counted.join(", ")
        }
    };
    let mut times: Vec<u64> = answers.iter().map(|answer| answer.micros).collect();
    let middle = if times.len() > 1 { " median" } else { "" };
    Row {
        asked: asked.to_string(),
        rule: rules.join(", "),
        went_to,
        status: statuses.join(", "),
        time: format!("{}{middle}", millis(median(&mut times))),
    }
}

fn push_new(list: &mut Vec<String>, item: String) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn median(times: &mut [u64]) -> u64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1000.0)
}
