//! held: response actions as a sidecar enforces them: who is quarantined or restricted, and what that refuses.

use std::sync::Arc;

use pilotfish_config::wire::{Actions, Hold};

use crate::authz::{Chain, Principal};
use crate::call::Call;
use crate::clock::Micros;
use crate::delegation::Delegated;
use crate::endpoint::Endpoint;
use crate::route::hash::FixedMap;
use crate::verdict::{Deny, Reason};

/// Who is held to what, as one sidecar sees it.
#[derive(Debug)]
pub struct Held {
    trust_domain: Box<str>,
    /// The own agent's.
    namespace: Box<str>,
    own: Option<Arc<Entry>>,
    /// By the SPIFFE ID without `spiffe://`.
    agents: FixedMap<Box<str>, Arc<Entry>>,
}

/// What one agent is held to.
#[derive(Debug)]
struct Entry {
    /// `namespace/name`.
    agent: Box<str>,
    hold: Hold,
    /// It is over by then, whatever the control plane says: it may be away.
    until: Option<Micros>,
}

/// What an agent is held to, as far as its open connections are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grip {
    /// It calls nobody, and nobody calls it.
    Quarantined,
    /// It may make some calls only.
    Restricted,
}

impl Entry {
    fn holds(&self, now: Micros) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn grip(&self) -> Grip {
        match self.hold {
            Hold::Quarantine => Grip::Quarantined,
            Hold::Restrict(_) => Grip::Restricted,
        }
    }

    fn quarantined(&self) -> Deny {
        let detail = format!("{0} is quarantined; `pilotfish release {0}` ends it", self.agent);
        Deny::with(Reason::Quarantined, detail)
    }

    fn restricted(&self, to: &[String], but: &str) -> Deny {
        let (agent, to) = (&self.agent, to.join(", "));
        let detail = format!("{agent} is restricted to {to}, {but}; `pilotfish release {agent}` ends it");
        Deny::with(Reason::Restricted, detail)
    }

    /// Whether it lets its agent make this call.
    fn calls(&self, call: &Call) -> Result<(), Deny> {
        let Hold::Restrict(to) = &self.hold else { return Err(self.quarantined()) };
        if call.capabilities.is_empty() {
            return Err(self.restricted(to, "and this call names no capability (agent-capability)"));
        }
        let within = |asked: &str| {
            let name = asked.split_once('@').map_or(asked, |(name, _)| name).trim();
            to.iter().any(|own| own.eq_ignore_ascii_case(name))
        };
        match call.capabilities.iter().all(|asked| within(asked)) {
            true => Ok(()),
            false => Err(self.restricted(to, "and this call asks for more")),
        }
    }
}

impl Held {
    /// What `actions` mean for the sidecar of `own` (`namespace/name`) in a trust domain (`None`: it has no identity, so nobody can
    /// prove to it who is held). `at` turns seconds since 1970 into the process's time. `None`: nobody is held.
    pub fn new(
        actions: &Actions,
        trust_domain: Option<&str>,
        own: &str,
        at: impl Fn(u64) -> Micros,
    ) -> Option<Held> {
        let mut held = Held {
            trust_domain: trust_domain.unwrap_or_default().into(),
            namespace: own.split_once('/').map_or("", |(namespace, _)| namespace).into(),
            own: None,
            agents: FixedMap::default(),
        };
        for action in &actions.actions {
            let entry = Arc::new(Entry {
                agent: action.agent.as_str().into(),
                hold: action.hold.clone(),
                until: action.until.map(&at),
            });
            if action.agent == own {
                held.own = Some(Arc::clone(&entry));
            }
            if let (Some(domain), Some((namespace, name))) = (trust_domain, action.agent.split_once('/')) {
                held.agents.insert(format!("{domain}/ns/{namespace}/agent/{name}").into(), entry);
            }
        }
        (held.own.is_some() || !held.agents.is_empty()).then_some(held)
    }

    /// The own agent, as far as it is held.
    fn own(&self, now: Micros) -> Option<&Entry> {
        self.own.as_deref().filter(|entry| entry.holds(now))
    }

    fn agent(&self, id: &str, now: Micros) -> Option<&Entry> {
        self.agents.get(id).map(|entry| &**entry).filter(|entry| entry.holds(now))
    }

    /// A call from another agent to the own one.
    ///
    /// # Errors
    /// `quarantined`: the caller, the own agent, or an agent that the caller acts for is; `restricted`: the caller may not ask for this.
    pub fn inbound(
        &self,
        now: Micros,
        caller: Option<&Principal>,
        chain: Option<&Chain>,
        call: &Call,
    ) -> Result<(), Deny> {
        if let Some(own) = self.own(now).filter(|own| own.grip() == Grip::Quarantined) {
            return Err(own.quarantined());
        }
        if let Some(entry) = caller.and_then(|caller| self.agent(&caller.id, now)) {
            entry.calls(call)?;
        }
        let Some(chain) = chain else { return Ok(()) };
        let ids = chain.agents.iter().map(|agent| &*agent.id).chain([&*chain.origin]);
        let mut held = ids.filter_map(|id| self.agent(id, now));
        match held.find(|entry| entry.grip() == Grip::Quarantined) {
            Some(entry) => Err(entry.quarantined()),
            None => Ok(()),
        }
    }

    /// Whether a call that is under way ends, which is for these: one of them is quarantined, or restricted and was not so `before`. What
    /// somebody restricted still may do begins anew, as on its own connections.
    pub fn cuts(&self, before: Option<&Held>, acting: &Delegated, now: Micros) -> Option<Deny> {
        everybody(acting).find_map(|id| {
            let entry = self.agent(id, now)?;
            match &entry.hold {
                Hold::Quarantine => Some(entry.quarantined()),
                Hold::Restrict(to) => self
                    .agent_since(before, id, now)
                    .map(|_| entry.restricted(to, "and this call was for it when it was")),
            }
        })
    }

    /// A call of the own agent; gives what receivers have to be told it asks for, when it is restricted. `acting`: for whom it is;
    /// `known`: a rule leads it somewhere; `tunnel`: nobody sees what goes through it.
    ///
    /// # Errors
    /// `quarantined`, `restricted`.
    pub fn outbound(
        &self,
        now: Micros,
        acting: Option<&Delegated>,
        call: &Call,
        known: bool,
        tunnel: bool,
    ) -> Result<Option<Box<[u8]>>, Deny> {
        // Who is called may be no sidecar that would look at the chain.
        let mut held = acting.into_iter().flat_map(everybody).filter_map(|id| self.agent(id, now));
        if let Some(entry) = held.find(|entry| entry.grip() == Grip::Quarantined) {
            return Err(entry.quarantined());
        }
        let Some(own) = self.own(now) else { return Ok(None) };
        own.calls(call)?;
        match &own.hold {
            Hold::Restrict(to) if tunnel => Err(own.restricted(to, "and nobody sees what a tunnel carries")),
            Hold::Restrict(to) if !known => Err(own.restricted(to, "and this host is not in the mesh")),
            _ => Ok(Some(call.capabilities.join(",").into_bytes().into())),
        }
    }

    /// A try of the own agent's call at an endpoint.
    ///
    /// # Errors
    /// `quarantined`: the endpoint's agent is, or the own one; `restricted`: the endpoint's agent has none of the capabilities.
    pub fn reach(&self, now: Micros, endpoint: &Endpoint) -> Result<(), Deny> {
        if let Some(own) = self.own(now) {
            let Hold::Restrict(to) = &own.hold else { return Err(own.quarantined()) };
            let able =
                |own: &String| endpoint.capabilities.iter().any(|has| has.name.eq_ignore_ascii_case(own));
            if !to.iter().any(able) {
                return Err(own.restricted(to, "and this destination has none of that"));
            }
        }
        let called = match (endpoint.identity.as_deref(), endpoint.agent.as_deref()) {
            (Some(id), _) => self.agent(id.trim_start_matches("spiffe://"), now),
            (None, Some(name)) => {
                let id = format!("{}/ns/{}/agent/{name}", self.trust_domain, endpoint.namespace);
                self.agent(&id, now)
            }
            (None, None) => None,
        };
        match called.filter(|called| called.grip() == Grip::Quarantined) {
            Some(called) => Err(called.quarantined()),
            None => Ok(()),
        }
    }

    /// A call of the own agent to a host that it names itself.
    ///
    /// # Errors
    /// `quarantined`, `restricted`.
    pub fn egress(&self, now: Micros) -> Result<(), Deny> {
        match self.own(now) {
            None => Ok(()),
            Some(own) => Err(match &own.hold {
                Hold::Quarantine => own.quarantined(),
                Hold::Restrict(to) => own.restricted(to, "and this host is not in the mesh"),
            }),
        }
    }

    /// A call of the own agent to a host that no document and no agent at work has: `NAME`, `NAME.NAMESPACE`, with `.svc` or
    /// `.svc.cluster.local` or without, and with a port or without.
    ///
    /// # Errors
    /// `quarantined`: that is the name of an agent that is.
    pub fn host(&self, now: Micros, authority: &str) -> Result<(), Deny> {
        let host = authority.split(':').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let short = host.strip_suffix(".cluster.local").unwrap_or(&host);
        let short = short.strip_suffix(".svc").unwrap_or(short);
        let (name, namespace) = short.split_once('.').unwrap_or((short, &self.namespace));
        let id = format!("{}/ns/{namespace}/agent/{name}", self.trust_domain);
        match self.agent(&id, now).filter(|named| named.grip() == Grip::Quarantined) {
            Some(named) => Err(named.quarantined()),
            None => Ok(()),
        }
    }

    /// How the own agent is held, if that is not what `before` said.
    pub fn own_since(&self, before: Option<&Held>, now: Micros) -> Option<Grip> {
        news(before.and_then(|before| before.own(now)), self.own(now))
    }

    /// How an agent is held (by its SPIFFE ID without `spiffe://`), if that is not what `before` said.
    pub fn agent_since(&self, before: Option<&Held>, id: &str, now: Micros) -> Option<Grip> {
        news(before.and_then(|before| before.agent(id, now)), self.agent(id, now))
    }
}

/// Everybody whom a call is for.
fn everybody(acting: &Delegated) -> impl Iterator<Item = &str> {
    acting.agents.iter().map(|agent| &*agent.id).chain([&*acting.origin])
}

/// How somebody is held that was not held so before; another time or reason is no news.
fn news(before: Option<&Entry>, entry: Option<&Entry>) -> Option<Grip> {
    let entry = entry?;
    (before.map(|before| &before.hold) != Some(&entry.hold)).then(|| entry.grip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_config::wire::Action;

    fn actions(held: &[(&str, Hold, Option<u64>)]) -> Actions {
        let action = |(agent, hold, until): &(&str, Hold, Option<u64>)| Action {
            agent: (*agent).into(),
            hold: hold.clone(),
            until: *until,
            since: 0,
            by: String::new(),
            why: String::new(),
        };
        Actions { actions: held.iter().map(action).collect() }
    }

    fn held(all: &[(&str, Hold, Option<u64>)]) -> Held {
        let at = |seconds: u64| Micros(seconds * 1_000_000);
        Held::new(&actions(all), Some("mesh.test"), "default/own", at).unwrap()
    }

    fn principal(name: &str) -> Principal {
        Principal {
            id: format!("mesh.test/ns/default/agent/{name}").into(),
            trust_domain: "mesh.test".into(),
            namespace: Some("default".into()),
            name: Some(name.into()),
        }
    }

    fn asking(capabilities: &[&str]) -> Call {
        Call { capabilities: capabilities.iter().map(|name| (*name).into()).collect(), ..Call::default() }
    }

    fn word<T>(result: Result<T, Deny>) -> &'static str {
        result.map_or_else(|deny| deny.reason.word(), |_| "allowed")
    }

    const NOW: Micros = Micros(0);

    #[test]
    fn a_quarantined_agent_calls_nobody_and_acts_through_nobody() {
        let held = held(&[("default/bad", Hold::Quarantine, None)]);
        let (bad, good) = (principal("bad"), principal("good"));
        let call = asking(&["nlu"]);
        assert_eq!(word(held.inbound(NOW, Some(&bad), None, &call)), "quarantined");
        assert_eq!(word(held.inbound(NOW, Some(&good), None, &call)), "allowed");
        let through = Chain { origin: "x/y".into(), agents: vec![bad.clone()], uncertain: false };
        assert_eq!(word(held.inbound(NOW, Some(&good), Some(&through), &call)), "quarantined");
        let begun = Chain { origin: bad.id.clone(), agents: Vec::new(), uncertain: false };
        assert_eq!(word(held.inbound(NOW, Some(&good), Some(&begun), &call)), "quarantined");
        let foreign = Principal { id: "other.test/ns/default/agent/bad".into(), ..bad };
        assert_eq!(word(held.inbound(NOW, Some(&foreign), None, &call)), "allowed");
        assert_eq!(word(held.outbound(NOW, None, &call, true, false)), "allowed");
        let acting = Delegated { agents: vec![good, principal("bad")], ..Delegated::default() };
        assert_eq!(word(held.outbound(NOW, Some(&acting), &call, true, false)), "quarantined");
    }

    #[test]
    fn a_call_for_who_is_held_ends_and_for_who_is_restricted_once() {
        let acting = Delegated { agents: vec![principal("a"), principal("bad")], ..Delegated::default() };
        let begun = Delegated { origin: principal("bad").id, ..Delegated::default() };
        let cut = |held: &Held, before: Option<&Held>, acting: &Delegated, at: u64| {
            held.cuts(before, acting, Micros(at)).map(|deny| deny.reason.word())
        };
        let quarantine = held(&[("default/bad", Hold::Quarantine, Some(10))]);
        for acting in [&acting, &begun] {
            assert_eq!(cut(&quarantine, None, acting, 0), Some("quarantined"));
            assert_eq!(cut(&quarantine, None, acting, 10_000_000), None, "its time is over");
        }
        let restrict = held(&[("default/bad", Hold::Restrict(vec!["nlu".into()]), None)]);
        assert_eq!(cut(&restrict, None, &acting, 0), Some("restricted"));
        assert_eq!(cut(&restrict, Some(&restrict), &acting, 0), None, "what it may do went on");
        assert_eq!(cut(&quarantine, Some(&restrict), &acting, 0), Some("quarantined"));
        assert_eq!(cut(&restrict, Some(&quarantine), &acting, 0), Some("restricted"));
        assert_eq!(cut(&restrict, None, &Delegated::default(), 0), None);
    }

    #[test]
    fn the_own_agent_is_cut_off_both_ways() {
        let held = held(&[("default/own", Hold::Quarantine, None)]);
        let call = asking(&["nlu"]);
        assert_eq!(word(held.inbound(NOW, Some(&principal("good")), None, &call)), "quarantined");
        assert_eq!(word(held.outbound(NOW, None, &call, true, false)), "quarantined");
        assert_eq!(word(held.egress(NOW)), "quarantined");
    }

    #[test]
    fn a_restricted_agent_asks_for_what_is_in_its_list() {
        let nlu = Hold::Restrict(vec!["nlu".into(), "ocr".into()]);
        let held = held(&[("default/own", nlu.clone(), None), ("default/bad", nlu, None)]);
        let bad = principal("bad");
        for (asked, verdict) in [
            (&[][..], "restricted"),
            (&["nlu"][..], "allowed"),
            (&["NLU@^1.2", "ocr"][..], "allowed"),
            (&["nlu", "pay"][..], "restricted"),
        ] {
            let call = asking(asked);
            assert_eq!(word(held.outbound(NOW, None, &call, true, false)), verdict, "{asked:?}");
            assert_eq!(word(held.inbound(NOW, Some(&bad), None, &call)), verdict, "{asked:?}");
        }
        let call = asking(&["nlu"]);
        assert_eq!(word(held.outbound(NOW, None, &call, true, true)), "restricted");
        assert_eq!(word(held.outbound(NOW, None, &call, false, false)), "restricted");
        assert_eq!(word(held.egress(NOW)), "restricted");
        let told = held.outbound(NOW, None, &asking(&["nlu", "ocr"]), true, false).unwrap();
        assert_eq!(told.as_deref(), Some(&b"nlu,ocr"[..]));
        assert_eq!(word(held.inbound(NOW, Some(&principal("good")), None, &asking(&[]))), "allowed");
    }

    #[test]
    fn it_ends_by_its_time_and_only_news_is_news() {
        let first = held(&[("default/bad", Hold::Quarantine, Some(10))]);
        let bad = principal("bad");
        let call = asking(&[]);
        let (before, after) = (Micros(9_999_999), Micros(10_000_000));
        assert_eq!(word(first.inbound(before, Some(&bad), None, &call)), "quarantined");
        assert_eq!(word(first.inbound(after, Some(&bad), None, &call)), "allowed");
        assert_eq!(first.agent_since(None, &bad.id, before), Some(Grip::Quarantined));
        assert_eq!(first.agent_since(None, &bad.id, after), None);
        let more =
            held(&[("default/bad", Hold::Quarantine, Some(10)), ("default/own", Hold::Quarantine, None)]);
        assert_eq!(more.agent_since(Some(&first), &bad.id, before), None);
        assert_eq!(more.own_since(Some(&first), before), Some(Grip::Quarantined));
        assert_eq!(more.own_since(Some(&more), before), None);
    }

    #[test]
    fn a_quarantined_agent_is_known_by_its_name_too() {
        let held = held(&[
            ("default/bad", Hold::Quarantine, None),
            ("prod/worse", Hold::Quarantine, Some(5)),
            ("default/some", Hold::Restrict(vec!["nlu".into()]), None),
        ]);
        for host in ["bad", "BAD:80", "bad.default", "bad.default.svc:8080", "bad.default.svc.cluster.local."]
        {
            assert_eq!(word(held.host(NOW, host)), "quarantined", "{host}");
        }
        for host in
            ["good", "some", "bad.prod", "bad.test", "x.bad", "bad.default.test", "", "[::1]:80", "worse"]
        {
            assert_eq!(word(held.host(NOW, host)), "allowed", "{host}");
        }
        assert_eq!(word(held.host(NOW, "worse.prod")), "quarantined");
        assert_eq!(word(held.host(Micros(5_000_000), "worse.prod")), "allowed");
    }

    #[test]
    fn without_an_identity_only_the_own_agent_is_known() {
        let all = actions(&[("default/bad", Hold::Quarantine, None)]);
        assert!(Held::new(&all, None, "default/own", Micros).is_none());
        assert!(Held::new(&all, None, "default/bad", Micros).is_some());
        assert!(Held::new(&Actions::default(), Some("mesh.test"), "default/bad", Micros).is_none());
    }
}
