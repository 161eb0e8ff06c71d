//! `pilotfish why`: how a call went at each sidecar that it passed, and why.

use std::fmt::Write as _;

use clap::Args;
use pilotfish_config::wire::{ActsFor, Attempt, Choice, Explained, StartedFor};

use super::client::{Client, Connection, query};
use super::failed::Failed;
use super::human;
use super::output::Output;
use super::table::{Cell, Table};
use super::tap::{clock, status, tone};
use super::terminal::{Terminal, Tone, harmless};
use crate::api::live::{Account, Accounts};

/// Columns of the longest bar.
const BAR: u64 = 24;

/// Say why a call went as it did: rule, candidates, tries, policies and where the time went.
///
/// Every sidecar that is connected is asked for what it remembers: the last 2048 calls of each of its workers (`--call-ring`). A call
/// with the header `agent-explain: 1` tells everything that was weighed, if its caller may ask for that (`--explain-callers` of
/// the sidecar; an agent's own calls by default).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish why 3f2c9a4e-5d1b-4c8e-9f60-7a1d2e3b4c5d
  pilotfish why 4bf92f3577b34da6a3ce929d0e0e4736
  pilotfish why --last 3 --agent production/web

  curl -i -H 'agent-explain: 1' -H 'host: chat' http://127.0.0.1:15001/
    asks a call to be explained; its answer has the `x-request-id` to ask for

Exit code 1 when no sidecar remembers such a call.")]
pub struct Why {
    /// The `x-request-id` of a call, or the id of a trace (32 hexadecimal digits, or a whole `traceparent`)
    #[arg(value_name = "ID", required_unless_present = "last", conflicts_with = "last")]
    id: Option<String>,

    /// Instead: the newest calls, so many of each sidecar
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    last: Option<u32>,

    /// Ask only the sidecars of these agents: AGENT, NAMESPACE/AGENT or NAMESPACE/*, several separated by commas
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Why {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let mut answer = Accounts::default();
        for (name, value) in self.questions() {
            let path = query("/v1/why", &[(name, Some(&value)), ("agent", self.agent.as_deref())]);
            answer = client.get(&path).await?;
            if !answer.calls.is_empty() {
                break;
            }
        }
        self.output.print(&answer, |_| text(&answer, &Terminal::stdout()))?;
        if !self.output.is_data() {
            missing(&answer);
        }
        match answer.calls.is_empty() {
            true => Err(Failed::refused(self.nothing(&answer))),
            false => Ok(()),
        }
    }

    /// What is asked for, in this order until something is found: an id of 32 digits may be either.
    fn questions(&self) -> Vec<(&'static str, String)> {
        let Some(id) = &self.id else {
            return vec![("last", self.last.unwrap_or(1).to_string())];
        };
        let mut questions = Vec::new();
        let parts: Vec<&str> = id.split('-').collect();
        let trace = match parts.as_slice() {
            [version, trace, span, flags] if version.len() == 2 && span.len() == 16 && flags.len() == 2 => {
                trace
            }
            _ => id.as_str(),
        };
        let digits = |text: &str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if digits(trace) && trace.bytes().any(|byte| byte != b'0') {
            questions.push(("trace", trace.to_ascii_lowercase()));
        }
        questions.push(("request", id.clone()));
        questions
    }

    fn nothing(&self, answer: &Accounts) -> String {
        let asked = human::count(answer.answered, "sidecar");
        match &self.id {
            Some(id) => format!(
                "none of {asked} remembers a call or a trace `{}`; sidecars remember their newest calls only (--call-ring)",
                harmless(id, false)
            ),
            None => format!("{asked} answered, and there was no call yet"),
        }
    }
}

/// Who was not heard.
fn missing(answer: &Accounts) {
    if answer.silent_count > 0 {
        let names = harmless(&answer.silent.join(", "), false);
        eprintln!("no answer of {}: {names}", human::count(answer.silent_count, "sidecar"));
    }
    if answer.elsewhere > 0 {
        let count = human::count(answer.elsewhere, "sidecar");
        eprintln!("{count} of other control planes were not asked; ask there too (--control)");
    }
    if answer.left_off > 0 {
        eprintln!(
            "{} more are not shown",
            human::count(usize::try_from(answer.left_off).unwrap_or(0), "call")
        );
    }
}

fn text(answer: &Accounts, terminal: &Terminal) -> String {
    let blocks: Vec<String> = answer.calls.iter().map(|call| block(call, terminal)).collect();
    blocks.join("\n")
}

/// One call at one sidecar.
fn block(call: &Account, terminal: &Terminal) -> String {
    let mut out = String::new();
    let told = |text: &str| harmless(text, false);
    let way = match call.direction.as_str() {
        "inbound" => {
            let from = if call.caller.is_empty() { &call.peer } else { &call.caller };
            format!("{} -> {}", told(from), told(&call.agent))
        }
        _ => format!("{} -> {}", told(&call.agent), told(&call.host)),
    };
    let title = format!("{way}  ({} at the sidecar of {})", told(&call.direction), told(&call.agent));
    let _ = writeln!(out, "{}", terminal.paint(Tone::Strong, &title));
    let answered = status(call.status);
    let answered = tone(call.status).map_or(answered.clone(), |tone| terminal.paint(tone, &answered));
    let _ = writeln!(
        out,
        "  {}  {} {}  {answered}  {}",
        clock(call.time_ns),
        told(&call.method),
        told(&call.path),
        human::latency(call.stages.ended_us)
    );
    let mut fact = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "  {name:<11}{}", told(value));
        }
    };
    fact("refused", &refused(call));
    fact("acts for", &call.delegation.as_ref().map(acts_for).unwrap_or_default());
    fact("rule", &call.rule);
    fact("cluster", &call.cluster);
    fact("capability", &call.capability);
    fact("protocol", &call.protocol);
    fact("policies", &call.policies.join(", "));
    if let Some(StartedFor { agent, waited_ms }) = &call.started_for {
        fact("started", &format!("{agent}, after {}", human::latency(waited_ms.saturating_mul(1000))));
    }
    fact("workflow", &call.workflow);
    fact("request", &call.request_id);
    let kept = match (call.sampled, call.inferred) {
        (_, true) => " (its parent is inferred)",
        (true, false) => "",
        (false, false) => " (not sampled)",
    };
    fact("trace", &format!("{}{kept}", call.trace));
    if let Some(last) = call.attempts.last() {
        fact("choice", &chosen(last));
    }
    if !call.attempts.is_empty() {
        out.push_str(&indented(&tries(call, terminal)));
    }
    out.push_str(&indented(&stages(call, terminal)));
    if let Some(explained) = &call.explained {
        explain(&mut out, explained, terminal);
    }
    out
}

fn refused(call: &Account) -> String {
    match call.detail.as_str() {
        "" => call.reason.clone(),
        detail => format!("{}: {detail}", call.reason),
    }
}

/// Who asked whom, up to whoever makes this call: `default/a -> default/b`.
fn acts_for(chain: &ActsFor) -> String {
    let short = |id: &String| match id.split_once("/ns/").and_then(|(_, rest)| rest.split_once("/agent/")) {
        Some((namespace, agent)) => format!("{namespace}/{agent}"),
        None => id.clone(),
    };
    let agents: Vec<String> = chain.agents.iter().map(short).collect();
    if chain.uncertain {
        return match agents.is_empty() {
            true => "nobody knows whom".to_owned(),
            false => format!("one of {}, and it is not certain which", agents.join(", ")),
        };
    }
    // An agent that began it is there already.
    let origin =
        Some(&chain.origin).filter(|origin| !origin.is_empty() && Some(*origin) != chain.agents.first());
    origin.cloned().into_iter().chain(agents).collect::<Vec<_>>().join(" -> ")
}

fn chosen(attempt: &Attempt) -> String {
    let mut text = place(&attempt.endpoint, &attempt.agent);
    if let Some(cost) = attempt.cost {
        let _ = write!(text, " at a cost of {cost:.0}");
    }
    match (attempt.candidates, attempt.eligible) {
        (0 | 1, _) => {}
        (all, 0) => text.push_str(&format!(", of {all} candidates")),
        (all, able) => text.push_str(&format!(", of {all} candidates {able} could be chosen")),
    }
    if let Some(other) = &attempt.runner_up {
        let cost = other.cost.map(|cost| format!(" at {cost:.0}")).unwrap_or_default();
        let _ = write!(text, "; next: {}{cost}", other.endpoint);
    }
    text
}

fn place(endpoint: &str, agent: &str) -> String {
    match (endpoint, agent) {
        ("", "") => "nobody".into(),
        (endpoint, "") => endpoint.into(),
        (endpoint, agent) => format!("{agent} at {endpoint}"),
    }
}

fn tries(call: &Account, terminal: &Terminal) -> String {
    let mut table = Table::new(&[">TRY", "ENDPOINT", ">BEGAN", ">CONNECTED", ">ANSWERED", "STATUS", "ENDED"]);
    let kept = call.attempts.len();
    for (at, attempt) in call.attempts.iter().enumerate() {
        // Of many the last one is the last.
        let number = if at + 1 == kept { call.tries as usize } else { at + 1 };
        let connected = match (attempt.connected_us, attempt.reused) {
            (_, true) => "kept".to_owned(),
            (0, false) => String::new(),
            (at, false) => human::latency(at.saturating_sub(attempt.began_us)),
        };
        let answered = match attempt.answered_us {
            0 => String::new(),
            at => human::latency(at.saturating_sub(attempt.began_us)),
        };
        let status = if attempt.status == 0 { String::new() } else { attempt.status.to_string() };
        let status = tone(attempt.status)
            .filter(|_| attempt.status > 0)
            .map_or_else(|| status.as_str().into(), |tone| Cell::toned(status.as_str(), tone));
        table.row([
            number.to_string().into(),
            place(&attempt.endpoint, &attempt.agent).into(),
            human::latency(attempt.began_us).into(),
            connected.into(),
            answered.into(),
            status,
            attempt.ended.as_str().into(),
        ]);
    }
    table.print(terminal)
}

fn stages(call: &Account, terminal: &Terminal) -> String {
    let stages = call.stages;
    let all = [
        ("decode", stages.decoded_us),
        ("route", stages.routed_us),
        ("admit", stages.admitted_us),
        ("answer", stages.answered_us),
        ("end", stages.ended_us),
    ];
    let whole = stages.ended_us.max(1);
    let mut table = Table::new(&["STAGE", ">TOOK", ">UNTIL", "SHARE"]);
    let mut before = 0;
    for (name, at) in all.into_iter().filter(|(name, at)| *at > 0 || *name == "end") {
        let took = at.saturating_sub(before);
        table.row([
            name.into(),
            human::latency(took).into(),
            human::latency(at).into(),
            bar(before.min(whole), took, whole).into(),
        ]);
        before = before.max(at);
    }
    table.print(terminal)
}

/// Where in the whole a stage lies.
fn bar(before: u64, took: u64, whole: u64) -> String {
    let cells = |micros: u64| usize::try_from(micros.min(whole) * BAR / whole).unwrap_or(0);
    let (from, to) = (cells(before), cells(before.saturating_add(took)));
    let long = to.saturating_sub(from);
    let drawn = if long == 0 { "▏".to_owned() } else { "█".repeat(long) };
    // A place in front of the bar, which the table would not keep of spaces alone.
    format!("{}{drawn}", "·".repeat(from))
}

fn explain(out: &mut String, explained: &Explained, terminal: &Terminal) {
    for passed in &explained.passed_over {
        let why = passed.why.join("; or ");
        let _ = writeln!(out, "  not the rule {}: {}", harmless(&passed.rule, false), harmless(&why, false));
    }
    let several = explained.choices.len() > 1;
    for (at, choice) in explained.choices.iter().enumerate() {
        let number = if several { format!(" of try {}", at + 1) } else { String::new() };
        let by = if choice.by.is_empty() { String::new() } else { format!(", by {}", choice.by) };
        let target = harmless(&choice.target, false);
        let _ = writeln!(out, "  candidates{number} for {target}{}:", harmless(&by, false));
        out.push_str(&indented(&candidates(choice, terminal)));
        if choice.left_off > 0 {
            let _ = writeln!(out, "  and {} more", choice.left_off);
        }
    }
    if explained.cut {
        let _ = writeln!(out, "  (more was weighed than is kept)");
    }
}

fn candidates(choice: &Choice, terminal: &Terminal) -> String {
    let mut table = Table::new(&["CANDIDATE", ">COST", ">LATENCY", ">SUCCESS", ">IN-FLIGHT", "WHY"]);
    for one in &choice.candidates {
        let measured = one.cost.is_some();
        let why = match one.chosen {
            true => Cell::toned("chosen", Tone::Good),
            false => one.why_not.join("; ").into(),
        };
        table.row([
            place(&one.endpoint, &one.agent).into(),
            one.cost.map(|cost| format!("{cost:.0}")).unwrap_or_default().into(),
            if measured { human::latency(one.latency_us) } else { String::new() }.into(),
            if measured { human::share(one.success) } else { String::new() }.into(),
            one.in_flight.to_string().into(),
            why,
        ]);
    }
    table.print(terminal)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_config::wire::{Candidate, PassedOver, RunnerUp, StageTimes};

    fn why(id: &str) -> Why {
        Why {
            id: Some(id.into()),
            last: None,
            agent: None,
            output: Output::default(),
            connection: Connection::default(),
        }
    }

    #[test]
    fn an_id_may_be_a_trace_a_request_or_a_traceparent() {
        let names = |id: &str| why(id).questions().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names("4BF92F3577B34DA6A3CE929D0E0E4736"), ["trace", "request"]);
        assert_eq!(names("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ["trace", "request"]);
        assert_eq!(names("3f2c9a4e-5d1b-4c8e-9f60-7a1d2e3b4c5d"), ["request"]);
        assert_eq!(names(&"0".repeat(32)), ["request"]);
    }

    #[test]
    fn an_account_is_readable_and_steers_no_terminal() {
        let call = Account {
            agent: "default/web".into(),
            direction: "outbound".into(),
            host: "planner\x1b[2J".into(),
            method: "POST".into(),
            path: "/v1".into(),
            status: 200,
            rule: "default/planner/0".into(),
            trace: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            policies: vec!["retry".into()],
            stages: StageTimes {
                decoded_us: 10,
                routed_us: 20,
                admitted_us: 30,
                answered_us: 900,
                ended_us: 1000,
            },
            tries: 2,
            attempts: vec![Attempt {
                endpoint: "10.0.0.1:80".into(),
                ended: "answered".into(),
                status: 200,
                began_us: 40,
                answered_us: 900,
                candidates: 3,
                eligible: 2,
                cost: Some(12.0),
                runner_up: Some(RunnerUp { endpoint: "10.0.0.2:80".into(), cost: Some(14.0) }),
                ..Attempt::default()
            }],
            explained: Some(Explained {
                passed_over: vec![PassedOver { rule: "r".into(), why: vec!["the path is `/`".into()] }],
                choices: vec![Choice {
                    candidates: vec![Candidate {
                        endpoint: "10.0.0.1:80".into(),
                        chosen: true,
                        ..Candidate::default()
                    }],
                    ..Choice::default()
                }],
                cut: false,
            }),
            ..Account::default()
        };
        let text = text(&Accounts { calls: vec![call], ..Accounts::default() }, &Terminal::PIPE);
        for part in [
            "default/web -> planner\\u001b[2J  (outbound at the sidecar of default/web)",
            "  rule       default/planner/0",
            "of 3 candidates 2 could be chosen; next: 10.0.0.2:80 at 14",
            "not the rule r: the path is `/`",
            "answer  870 us  900 us  ",
            "chosen",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn bars_lie_within_the_whole() {
        assert_eq!(bar(0, 1000, 1000), "█".repeat(24));
        assert_eq!(bar(500, 500, 1000), format!("{}{}", "·".repeat(12), "█".repeat(12)));
        assert_eq!(bar(1000, 0, 1000), format!("{}▏", "·".repeat(24)));
        assert_eq!(bar(5, u64::MAX, 1), "·".repeat(24) + "▏");
    }
}
