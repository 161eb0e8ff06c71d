//! Which rule and which endpoint a request would get, and why, without sending it: by the router and the catalogue that
//! serve requests.

mod asked;
pub mod authz;
pub mod choice;

use pilotfish_config::model::OutboundMode;

use crate::affinity;
use crate::balance::Pick;
use crate::call::{Call, Caller, Head};
use crate::capability::catalogue::MEASURED_AFTER;
use crate::clock::Micros;
use crate::cluster::{Cluster, Kind};
use crate::endpoint::Endpoint;
use crate::plan::{Action, CapabilityTarget, Matched, Plan, Rule, Target};
use crate::route::split_authority;
use crate::verdict::{Deny, Reason};
pub use asked::Asked;

/// At most this many candidates and rules are listed.
const LISTED: usize = 50;

/// What would happen to a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Explanation {
    /// One line a step, as a person should read them.
    pub lines: Vec<String>,
    /// The rule's name.
    pub rule: Option<String>,
    /// The cluster with the largest share; `None` when a capability is asked for.
    pub cluster: Option<String>,
    /// Candidates, the likeliest first: who and where, and why or why not.
    pub candidates: Vec<(String, String)>,
    /// The refusal's word, when it would be refused.
    pub refused: Option<String>,
}

/// Explains what a sidecar with this plan would do with the request.
pub fn explain(plan: &Plan, asked: &Asked, now: Micros) -> Explanation {
    let (call, caller) = (asked.call(), asked.caller());
    let mut out = Explanation::default();
    for (rule, why) in plan.passed_over(asked, &caller).into_iter().take(LISTED) {
        out.lines.push(format!("not the rule {rule}: {}", why.join("; or ")));
    }
    match plan.route(asked, &call, &caller) {
        Ok(matched) => out.matched(plan, &matched, asked, &call, &caller, now),
        Err(_) if !plan.knows(asked.authority()) && call.capabilities.is_empty() => out.unknown(plan, asked),
        Err(deny) => out.refuse(&deny),
    }
    out
}

impl Explanation {
    fn refuse(&mut self, deny: &Deny) {
        let detail = deny.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
        self.lines.push(format!("refused with {} {}{detail}", deny.reason.status(), deny.reason.word()));
        self.refused = Some(deny.reason.word().to_owned());
    }

    /// A host that no rule and no service is for.
    fn unknown(&mut self, plan: &Plan, asked: &Asked) {
        let host = split_authority(asked.authority()).0;
        self.lines.push(format!("no rule and no service is for {host}"));
        match plan.egress().mode() {
            OutboundMode::AllowAny => self.lines.push(
                "through a proxy setting (HTTP_PROXY, CONNECT) it goes where its name resolves to, since the mode is \
                 ALLOW_ANY"
                    .into(),
            ),
            OutboundMode::RegistryOnly => {
                self.lines.push("the mode is REGISTRY_ONLY".into());
                self.refuse(&Deny::from(Reason::NoRoute));
            }
        }
    }

    fn matched(
        &mut self,
        plan: &Plan,
        matched: &Matched<'_>,
        asked: &Asked,
        call: &Call,
        caller: &Caller,
        now: Micros,
    ) {
        self.rule = Some(matched.rule.name.to_string());
        self.lines.push(format!("the rule {} matches", matched.rule.name));
        if let Some(timeout) = matched.rule.timeout {
            self.lines.push(format!("its time limit is {timeout:?}"));
        }
        if let Some(path) = matched.rewritten_path(asked.path()) {
            self.lines.push(format!("the path becomes {path}"));
        }
        if let Some(authority) = matched.rewritten_authority() {
            self.lines.push(format!("the host becomes {authority}"));
        }
        match &matched.rule.action {
            Action::Redirect(redirect) => {
                let to = matched.location(redirect, asked, caller);
                self.lines.push(format!("answered with {} to {to}", redirect.status));
            }
            Action::Respond(response) => self.lines.push(format!("answered with {}", response.status)),
            Action::Forward(split) => {
                let key = conversation(matched.rule, asked, call, caller);
                if key.is_some() {
                    self.lines.push("the conversation stays where its key says".into());
                }
                let mut all: Vec<_> = split.destinations().iter().collect();
                all.sort_by_key(|destination| std::cmp::Reverse(destination.weight));
                let total: u64 = all.iter().map(|destination| u64::from(destination.weight)).sum();
                if all.len() > 1 {
                    for one in &all {
                        let share = u64::from(one.weight) * 100 / total.max(1);
                        self.lines.push(format!("{share} % go to {}", plan.target_name(&one.target)));
                    }
                }
                let chosen = split.choose(key, &mut fastrand::Rng::with_seed(0));
                let likeliest = if key.is_some() { Some(chosen) } else { all.first().copied() };
                if let Some(destination) = likeliest {
                    self.target(plan, &destination.target, (call, caller), key, now);
                }
            }
        }
    }

    fn target(
        &mut self,
        plan: &Plan,
        target: &Target,
        (call, caller): (&Call, &Caller),
        key: Option<u64>,
        now: Micros,
    ) {
        match (target, target.cluster(caller.port)) {
            (_, Err(deny)) => self.refuse(&deny),
            (Target::Capability(target), _) => self.capability(plan, target, call, now),
            (_, Ok(id)) => {
                if let Some(id) = id {
                    self.cluster(plan.cluster(id), key, now);
                }
            }
        }
    }

    fn cluster(&mut self, cluster: &Cluster, key: Option<u64>, now: Micros) {
        self.cluster = Some(cluster.name.to_string());
        if cluster.kind == Kind::Original {
            self.lines.push(format!("it goes to {}, at the address that its name resolves to", cluster.name));
            return;
        }
        let chosen = key.filter(|_| cluster.hash_key.is_some()).and_then(|key| {
            let pick = Pick { key: Some(key), now, tried: &[], remote: false, compared: None };
            let lease = cluster.pick(&pick, &mut fastrand::Rng::with_seed(0)).ok()?;
            Some(lease.endpoint().addr)
        });
        let mut all: Vec<&Endpoint> = cluster.endpoints().iter().map(|endpoint| &**endpoint).collect();
        all.sort_by(|a, b| {
            let rank = |e: &Endpoint| (chosen != Some(e.addr), !is_healthy(e, now));
            rank(a).cmp(&rank(b)).then(a.stats.cost(now).total_cmp(&b.stats.cost(now)))
        });
        if all.is_empty() {
            return self.refuse(&Deny::with(Reason::NoEndpoint, format!("{} has no endpoint", cluster.name)));
        }
        self.lines.push(format!("{} has {}", cluster.name, count(all.len(), "endpoint")));
        self.candidates
            .extend(all.into_iter().take(LISTED).map(|endpoint| (who(endpoint), state(endpoint, now))));
    }

    /// Who qualifies, the cheapest first; then who does not.
    fn capability(&mut self, plan: &Plan, target: &CapabilityTarget, call: &Call, now: Micros) {
        let demand = match target.demand(call) {
            Ok(demand) => demand,
            Err(deny) => return self.refuse(&deny),
        };
        let names: Vec<&str> = demand.wanted.iter().map(|wanted| &*wanted.name).collect();
        self.lines.push(format!("it asks for {}", names.join(" and ")));
        let refused = plan.catalogue().candidates(&demand, now).err();
        let mut all = plan.catalogue().judged(&demand, now);
        all.sort_by(|(a, a_why), (b, b_why)| {
            let rank = |e: &Endpoint, why: &[String]| (!why.is_empty(), !is_healthy(e, now));
            rank(&a.endpoint, a_why)
                .cmp(&rank(&b.endpoint, b_why))
                .then(a.endpoint.stats.cost(now).total_cmp(&b.endpoint.stats.cost(now)))
        });
        let able = all.iter().filter(|(_, why)| why.is_empty()).count();
        match refused {
            Some(deny) => self.refuse(&deny),
            None => self.lines.push(format!("{} of {} qualify", able, count(all.len(), "candidate"))),
        }
        for (candidate, why) in all.into_iter().take(LISTED) {
            let endpoint = &candidate.endpoint;
            let why = if why.is_empty() { state(endpoint, now) } else { format!("no: {}", why.join("; ")) };
            self.candidates.push((who(endpoint), why));
        }
    }
}

/// The number of the conversation that a request belongs to; a cookie that would be issued is none yet.
fn conversation(rule: &Rule, asked: &Asked, call: &Call, caller: &Caller) -> Option<u64> {
    let key = affinity::key(rule.affinity.as_ref()?, asked, call, caller, &mut fastrand::Rng::with_seed(0));
    key.hash.filter(|_| key.set_cookie.is_none())
}

fn is_healthy(endpoint: &Endpoint, now: Micros) -> bool {
    !endpoint.degraded && !endpoint.stats.is_out(now)
}

fn who(endpoint: &Endpoint) -> String {
    match &endpoint.agent {
        Some(agent) => format!("{agent} at {}", endpoint.addr),
        None => endpoint.addr.to_string(),
    }
}

/// What is known of an endpoint that would do.
fn state(endpoint: &Endpoint, now: Micros) -> String {
    let stats = &endpoint.stats;
    let mut parts = Vec::new();
    let health = stats.health(now);
    if !health.is_well() {
        parts.push(format!("skipped: {health}"));
    }
    if endpoint.degraded {
        parts.push("degraded: only when no other is ready".to_owned());
    }
    let reported = stats.calls() >= MEASURED_AFTER || stats.cost(now) > 0.0;
    if reported {
        let latency = stats.latency(now).as_secs_f64() * 1e3;
        parts.push(format!("latency {latency:.1} ms, {:.1} % succeed", stats.success(now) * 100.0));
    } else {
        parts.push("not measured yet".to_owned());
    }
    parts.push(format!("{} in flight", stats.in_flight()));
    if endpoint.weight != 1 {
        parts.push(format!("weight {}", endpoint.weight));
    }
    parts.join(", ")
}

fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
