//! What a decision by the thousand rules of the workload `authz` takes: with the caller's rules at hand, as on a connection that called
//! before, with the index alone, and with nothing to decide. On one thread, without sockets.

use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use clap::Args;
use pilotfish_config::{Options, load_texts};
use pilotfish_filters::authz::policies::CallerRules;
use pilotfish_filters::authz::{Asking, Principal, Who};
use pilotfish_filters::call::{Call, Caller};
use pilotfish_filters::clock::Micros;
use pilotfish_filters::compile::{CompileOptions, Resolved, compile};
use pilotfish_filters::plan::Plan;
use pilotfish_filters::state::State;
use pilotfish_proxy::http::RequestHead;
use serde_json::json;

use crate::authz::documents;
use crate::peers::Peer;
use crate::work::Values;

/// Decisions of each kind.
const DECISIONS: usize = 1_000_000;

/// What `pilotfish-bench decisions` can be asked for.
#[derive(Args)]
pub struct DecisionArgs {
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
///
/// # Errors
/// The policies are not taken.
pub fn run(args: &DecisionArgs) -> io::Result<()> {
    let (none, policies) = (plan("")?, plan(&documents(Peer::Pilotfish))?);
    let caller = caller();
    let rules = policies.caller_rules(Some(&caller));
    let values = Values::from([
        ("none_ns".to_owned(), decide(&none, &caller, None)?),
        ("known_caller_ns".to_owned(), decide(&policies, &caller, rules.as_ref())?),
        ("index_ns".to_owned(), decide(&policies, &caller, None)?),
        ("new_caller_ns".to_owned(), meet(&policies, &caller)),
    ]);
    if args.json {
        println!("{}", json!(values));
    } else {
        values.iter().for_each(|(name, value)| println!("{name:>16} {value:8.1}"));
    }
    Ok(())
}

fn plan(yaml: &str) -> io::Result<Plan> {
    let loaded = load_texts(&[("policies.yaml", yaml)], &Options::default());
    let model = loaded.model.ok_or_else(|| io::Error::other(loaded.report.to_string()))?;
    let options = CompileOptions {
        namespace: "bench".into(),
        trust_domain: Some("mesh.local".into()),
        ..CompileOptions::default()
    };
    let plan = compile(&model, &options, &Resolved::default(), &State::default(), Micros(0));
    plan.map_err(|_| io::Error::other("it does not compile"))
}

/// Whom the last rule lets in.
fn caller() -> Principal {
    Principal {
        id: "mesh.local/ns/bench/agent/app".into(),
        trust_domain: "mesh.local".into(),
        namespace: Some("bench".into()),
        name: Some("app".into()),
    }
}

/// Nanoseconds for a decision.
fn decide(plan: &Plan, caller: &Principal, rules: Option<&CallerRules>) -> io::Result<f64> {
    let head = RequestHead::new(http::Method::GET, "agent", "/agents/0/run");
    let (call, from) = (Call::default(), Caller { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 80 });
    let who = Who { principal: Some(caller), rules, ..Who::default() };
    let since = Instant::now();
    for _ in 0..DECISIONS {
        let asking = Asking { head: black_box(&head), call: &call, caller: &from, who: black_box(&who) };
        let judgement = plan.authorize(&asking);
        if let Some(deny) = judgement.deny {
            return Err(io::Error::other(format!("it is refused: {:?}", deny.detail)));
        }
        black_box(judgement);
    }
    Ok(since.elapsed().as_secs_f64() * 1e9 / DECISIONS as f64)
}

/// Nanoseconds for the rules of a caller that was not here before.
fn meet(plan: &Plan, caller: &Principal) -> f64 {
    let since = Instant::now();
    for _ in 0..DECISIONS {
        black_box(plan.caller_rules(black_box(Some(caller))));
    }
    since.elapsed().as_secs_f64() * 1e9 / DECISIONS as f64
}
