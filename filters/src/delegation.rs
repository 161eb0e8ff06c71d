//! delegation: for whom an agent acts, as its sidecar hands it on: signed links as far as there are some.

use std::sync::{Arc, OnceLock};

use crate::authz::{Chain, Principal};

/// The most agents that a chain names; of more nobody is sure any more.
pub const MOST_AGENTS: usize = 64;

/// For whom the calls are that an agent makes while it serves a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delegated {
    /// What records of these calls keep of it.
    pub shown: Shown,
    /// Where it began, when that was a token: its `ISSUER/SUBJECT`.
    pub origin: Box<str>,
    /// The agents up to here, first to last; the last is who called.
    pub agents: Vec<Principal>,
    /// Their signed links; empty: nobody signed.
    pub links: Box<str>,
    /// When the oldest of them was signed, seconds since 1970.
    pub signed: u64,
    /// When they were verified here, seconds since 1970.
    pub received: u64,
    /// The agents are all that it may be.
    pub uncertain: bool,
}

/// What records keep, made when the first one does.
#[derive(Debug, Default)]
pub struct Shown(OnceLock<Arc<Chain>>);

impl Clone for Shown {
    /// Of what is changed after it was cloned it is made anew.
    fn clone(&self) -> Shown {
        Shown::default()
    }
}

impl PartialEq for Shown {
    /// It follows from the rest.
    fn eq(&self, _: &Shown) -> bool {
        true
    }
}

impl Eq for Shown {}

impl Delegated {
    /// Whether anybody is known for whom it is.
    pub fn is_somebody(&self) -> bool {
        self.uncertain || !self.agents.is_empty() || !self.origin.is_empty()
    }

    /// What records of calls keep of it.
    pub fn kept(&self) -> &Arc<Chain> {
        self.shown.0.get_or_init(|| {
            let origin = match self.agents.first() {
                Some(first) if self.origin.is_empty() && !self.uncertain => &first.id,
                _ => &self.origin,
            };
            let (origin, agents) = (origin.clone(), self.agents.clone());
            Arc::new(Chain { origin, agents, uncertain: self.uncertain }).kept()
        })
    }

    /// What stands for agents that are too many to be named: nobody's identity, so no rule lets it do anything.
    pub fn unknown() -> Principal {
        Principal { id: "unknown".into(), trust_domain: "".into(), namespace: None, name: None }
    }

    /// What holds for a call that belongs to one of several: everybody whom it may be for. `None`: nobody.
    pub fn any_of<'a>(all: impl IntoIterator<Item = Option<&'a Arc<Delegated>>>) -> Option<Arc<Delegated>> {
        let mut all = all.into_iter();
        let first = all.next().flatten();
        let mut agents: Option<Vec<Principal>> = None;
        for own in all {
            let same = match (own, first) {
                (Some(own), Some(first)) => Arc::ptr_eq(own, first) || own == first,
                (own, first) => own.is_none() && first.is_none(),
            };
            if !same || agents.is_some() {
                let agents =
                    agents.get_or_insert_with(|| first.map_or_else(Vec::new, |own| own.agents.clone()));
                add(agents, own);
            }
        }
        match agents {
            None => first.cloned(),
            Some(agents) => Some(Arc::new(Delegated { agents, uncertain: true, ..Delegated::default() })),
        }
    }
}

fn add(agents: &mut Vec<Principal>, own: Option<&Arc<Delegated>>) {
    for agent in own.iter().flat_map(|own| &own.agents) {
        if agents.contains(agent) {
            continue;
        }
        if agents.len() + 1 >= MOST_AGENTS {
            let unknown = Delegated::unknown();
            if !agents.contains(&unknown) {
                agents.push(unknown);
            }
            return;
        }
        agents.push(agent.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delegated(names: &[&str]) -> Option<Arc<Delegated>> {
        let principal = |name: &&str| Principal {
            id: format!("m/ns/d/agent/{name}").into(),
            trust_domain: "m".into(),
            namespace: Some("d".into()),
            name: Some((*name).into()),
        };
        let links = names.join("~").into();
        Some(Arc::new(Delegated {
            agents: names.iter().map(principal).collect(),
            links,
            ..Delegated::default()
        }))
    }

    fn of(all: &[Option<Arc<Delegated>>]) -> Option<Arc<Delegated>> {
        Delegated::any_of(all.iter().map(Option::as_ref))
    }

    #[test]
    fn what_is_the_same_for_all_is_certain() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[None, None]), None);
        let (one, again) = (delegated(&["a"]), delegated(&["a"]));
        let both = of(&[one.clone(), again, one.clone()]).unwrap();
        assert!(Arc::ptr_eq(&both, one.as_ref().unwrap()) && !both.uncertain);
    }

    #[test]
    fn of_several_everybody_counts() {
        for all in [
            [delegated(&["a", "b"]), None, delegated(&["c", "b"])],
            [None, delegated(&["a", "b"]), delegated(&["c", "b"])],
        ] {
            let any = of(&all).unwrap();
            let ids: Vec<&str> = any.agents.iter().filter_map(|agent| agent.name.as_deref()).collect();
            assert_eq!(ids, ["a", "b", "c"]);
            assert!(any.uncertain && any.links.is_empty() && any.origin.is_empty());
        }
        let names: Vec<String> = (0..MOST_AGENTS * 2).map(|number| number.to_string()).collect();
        let many: Vec<_> = names.iter().map(|name| delegated(&[name])).collect();
        let any = of(&many).unwrap();
        assert!(any.agents.len() == MOST_AGENTS && any.agents.contains(&Delegated::unknown()));
    }
}
