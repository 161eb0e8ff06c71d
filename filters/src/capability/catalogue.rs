//! Who offers what: the candidates for a demand, or for each endpoint why it is none.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use semver::Version;

use super::constraint::{Constraint, Measure, Term, Test, bad};
use super::{Wanted, shown, wanted};
use crate::balance::{Accept, Pick, hash, peak_ewma};
use crate::call::Call;
use crate::clock::Micros;
use crate::cluster::ClusterId;
use crate::endpoint::{Endpoint, Labels};

use crate::verdict::{Deny, Reason};

/// An endpoint with fewer calls than this is not measured yet, and meets every constraint on what is measured.
pub const MEASURED_AFTER: u32 = 20;
/// At most this many candidates are explained in a refusal.
const EXPLAINED: usize = 32;

/// An endpoint whose agent is able to do something.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Where it is, what it is able to do, and what is known of it.
    pub endpoint: Arc<Endpoint>,
    /// The cluster that it was found in: whose limits and connection settings hold for it.
    pub cluster: ClusterId,
}

/// Everybody who is able to do something.
#[derive(Debug, Default)]
pub struct Catalogue {
    candidates: Vec<Candidate>,
    /// Every label that some endpoint carries, sorted.
    keys: Vec<Box<str>>,
}

/// What a call needs: capabilities, labels (of a subset) and the caller's own constraint.
#[derive(Debug, Clone, Default)]
pub struct Demand {
    /// All are needed.
    pub wanted: Vec<Wanted>,
    /// All must hold.
    pub constraint: Constraint,
    /// Labels that the rule's subset asks for.
    pub subset: Labels,
}

impl Demand {
    /// What `call` asks for by its headers and host.
    ///
    /// # Errors
    /// [`Reason::BadConstraint`] when a header cannot be read.
    pub fn of(call: &Call) -> Result<Demand, Deny> {
        Ok(Demand {
            wanted: wanted(call.capabilities.iter().map(|name| &**name))?,
            constraint: call.constraint.as_deref().map_or(Ok(Constraint::default()), Constraint::parse)?,
            subset: Labels::default(),
        })
    }
}

impl Catalogue {
    /// A catalogue of these.
    pub fn new(candidates: Vec<Candidate>) -> Self {
        let labels = candidates.iter().flat_map(|candidate| candidate.endpoint.labels.iter());
        let keys: BTreeSet<&str> = labels.map(|(key, _)| key).collect();
        let keys = keys.into_iter().map(Box::from).collect();
        Catalogue { candidates, keys }
    }

    /// Everybody.
    pub fn all(&self) -> &[Candidate] {
        &self.candidates
    }

    /// One of those who meet `demand`: by the conversation's key, so that it stays with one agent, else the cheaper
    /// of two drawn without replacement. Those that were tried, or could not be reached, only when there is no other.
    ///
    /// # Errors
    /// Those of [`Catalogue::candidates`]; [`Reason::BreakerOpen`] when the breakers of all who are able are open.
    pub fn choose(
        &self,
        demand: &Demand,
        pick: &Pick<'_>,
        rng: &mut fastrand::Rng,
    ) -> Result<&Candidate, Deny> {
        let able = self.candidates(demand, pick.now)?;
        if let Some(compared) = pick.compared {
            compared.note_able(able.len());
        }
        let chosen = match pick.key {
            Some(key) => by_key(&able, key, pick),
            None => {
                peak_ewma::choose_among(able.len(), |at| &able[at].endpoint, pick, rng).map(|at| able[at])
            }
        };
        chosen.ok_or_else(|| {
            let why = able
                .first()
                .map(|first| first.endpoint.stats.health(pick.now).to_string())
                .unwrap_or_default();
            let detail = format!("all {} who are able are shut; the first: {why}", able.len());
            Deny::with(Reason::BreakerOpen, detail)
        })
    }

    /// Those who meet `demand` now; whether they can be reached is not asked.
    ///
    /// # Errors
    /// [`Reason::BadConstraint`] for a key that no endpoint carries; [`Reason::NobodyQualifies`], with the reasons
    /// for each endpoint in [`Deny::extra`].
    pub fn candidates(&self, demand: &Demand, now: Micros) -> Result<Vec<&Candidate>, Deny> {
        self.check_keys(&demand.constraint)?;
        let able: Vec<&Candidate> = self.candidates.iter().filter(|c| c.qualifies(demand, now)).collect();
        if able.is_empty() { Err(self.nobody(demand, now)) } else { Ok(able) }
    }

    /// Everybody, with what keeps each from meeting `demand`: nothing for those who do.
    pub fn judged(&self, demand: &Demand, now: Micros) -> Vec<(&Candidate, Vec<String>)> {
        self.candidates.iter().map(|candidate| (candidate, candidate.why_not(demand, now))).collect()
    }

    fn check_keys(&self, constraint: &Constraint) -> Result<(), Deny> {
        let known = |key: &str| {
            matches!(key, "region" | "zone") || self.keys.binary_search_by(|own| (**own).cmp(key)).is_ok()
        };
        let unknown = constraint.terms.iter().find_map(|term| match &term.test {
            Test::Value { key, .. } if !known(key) => Some((term.position, key)),
            _ => None,
        });
        match unknown {
            Some((position, key)) => {
                Err(bad(position, format!("no endpoint has the label `{}`", shown(key))))
            }
            None => Ok(()),
        }
    }

    /// Why nobody qualifies, for a person and for a machine.
    fn nobody(&self, demand: &Demand, now: Micros) -> Deny {
        let mut json = String::from("{\"candidates\":[");
        for (at, candidate) in self.candidates.iter().take(EXPLAINED).enumerate() {
            let separator = if at == 0 { "" } else { "," };
            let name = candidate.endpoint.agent.as_deref().unwrap_or_default();
            let why: Vec<String> = candidate.why_not(demand, now).iter().map(|w| json_text(w)).collect();
            let _ = write!(
                json,
                "{separator}{{\"agent\":{},\"endpoint\":{},\"why\":[{}]}}",
                json_text(name),
                json_text(&candidate.endpoint.addr.to_string()),
                why.join(",")
            );
        }
        json.push(']');
        if self.candidates.len() > EXPLAINED {
            let _ = write!(json, ",\"candidates_not_shown\":{}", self.candidates.len() - EXPLAINED);
        }
        json.push('}');
        let lacking = demand.wanted.iter().find(|w| !self.candidates.iter().any(|c| c.offers(w)));
        let detail = match lacking {
            Some(wanted) => format!("no agent offers `{}`", shown(&wanted.name)),
            None => format!("none of {} candidates meets the demand", self.candidates.len()),
        };
        Deny { extra: Some(json.into()), ..Deny::with(Reason::NobodyQualifies, detail) }
    }
}

impl Candidate {
    /// The version of a capability that it has, if it has one of that name.
    fn capability(&self, name: &str) -> Option<Option<&Version>> {
        let own = self.endpoint.capabilities.iter().find(|own| own.name.eq_ignore_ascii_case(name));
        own.map(|own| own.version.as_ref())
    }

    /// The agent's own version, by its label.
    fn label_version(&self) -> Option<Version> {
        lenient_version(self.endpoint.label("version")?)
    }

    pub(crate) fn offers(&self, wanted: &Wanted) -> bool {
        let Some(version) = self.capability(&wanted.name) else { return false };
        match &wanted.version {
            None => true,
            Some(range) => match version {
                Some(version) => range.matches(version),
                None => self.label_version().is_some_and(|version| range.matches(&version)),
            },
        }
    }

    fn qualifies(&self, demand: &Demand, now: Micros) -> bool {
        demand.wanted.iter().all(|wanted| self.offers(wanted))
            && self.endpoint.labels.contain(demand.subset.iter())
            && demand.constraint.terms.iter().all(|term| self.meets(term, &demand.wanted, now))
    }

    pub(crate) fn meets(&self, term: &Term, wanted: &[Wanted], now: Micros) -> bool {
        match &term.test {
            Test::Value { key, negated, values } => {
                let own = self.value(key);
                values.iter().any(|value| own == Some(value)) != *negated
            }
            Test::Version { negated, ranges } => {
                let fits = |version: &Version| ranges.iter().any(|range| range.matches(version)) != *negated;
                let mut versions =
                    wanted.iter().filter_map(|w| self.capability(&w.name).flatten()).peekable();
                if versions.peek().is_some() {
                    versions.all(fits)
                } else {
                    // What has no version is in no range.
                    self.label_version().map_or(*negated, |version| fits(&version))
                }
            }
            Test::Measure(measure, comparison, bound) => {
                self.measured(*measure, now).is_none_or(|value| comparison.holds(value, *bound))
            }
        }
    }

    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        let locality = match key {
            "region" => &*self.endpoint.locality.region,
            "zone" => &*self.endpoint.locality.zone,
            _ => "",
        };
        if locality.is_empty() { self.endpoint.label(key) } else { Some(locality) }
    }

    /// A measure in its unit; `None` while too little was measured.
    fn measured(&self, measure: Measure, now: Micros) -> Option<f64> {
        let stats = &self.endpoint.stats;
        if measure == Measure::InFlight {
            return Some(f64::from(stats.in_flight()));
        }
        (stats.calls() >= MEASURED_AFTER).then(|| match measure {
            Measure::Latency => stats.latency(now).as_secs_f64() * 1e3,
            Measure::Cost => f64::from(stats.cost(now)) / 1e3,
            Measure::Success | Measure::InFlight => f64::from(stats.success(now)),
        })
    }

    /// Why it does not qualify; empty when it does.
    pub fn why_not(&self, demand: &Demand, now: Micros) -> Vec<String> {
        let lacks = demand.wanted.iter().filter(|wanted| !self.offers(wanted)).map(|wanted| {
            match (&wanted.version, self.capability(&wanted.name)) {
                (Some(range), Some(Some(own))) => format!("has `{}` {own}, not {range}", wanted.name),
                (Some(range), Some(None)) => format!("has `{}`, but no version in {range}", wanted.name),
                _ => format!("lacks the capability `{}`", wanted.name),
            }
        });
        let subset = (!self.endpoint.labels.contain(demand.subset.iter())).then(|| {
            let labels: Vec<String> =
                demand.subset.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("is not in the rule's subset ({})", labels.join(", "))
        });
        let terms = demand.constraint.terms.iter().filter(|term| !self.meets(term, &demand.wanted, now));
        let terms = terms.map(|term| format!("does not meet `{}`: {}", term.text, self.state(term, now)));
        lacks.chain(subset).chain(terms).collect()
    }

    /// What it has where a term asks for something else.
    fn state(&self, term: &Term, now: Micros) -> String {
        match &term.test {
            Test::Value { key, .. } => match self.value(key) {
                Some(value) => format!("it is `{value}`"),
                None => "it has none".to_owned(),
            },
            Test::Version { .. } => match self.endpoint.label("version") {
                Some(version) => format!("its label says `{version}`"),
                None => "its label says nothing".to_owned(),
            },
            Test::Measure(measure, ..) => match (measure, self.measured(*measure, now)) {
                (Measure::Latency | Measure::Cost, Some(value)) => format!("it is {value:.1}ms"),
                (Measure::Success, Some(value)) => format!("it is {:.1}%", value * 100.0),
                (Measure::InFlight, Some(value)) => format!("it is {value}"),
                (_, None) => "it is not measured".to_owned(),
            },
        }
    }
}

/// Rendezvous hashing: each key has an order of candidates of its own, by weight, and takes the first that will do.
/// When one comes or goes, only its own keys move.
fn by_key<'c>(able: &[&'c Candidate], key: u64, pick: &Pick<'_>) -> Option<&'c Candidate> {
    let distance = |candidate: &Candidate| {
        let endpoint = &candidate.endpoint;
        let hash = hash::mix(key ^ hash::address(endpoint.addr));
        // Exponential variates whose rates are the weights: the smallest is each one's in proportion to its weight.
        -(((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64).ln() / f64::from(endpoint.weight)
    };
    Accept::ORDER.into_iter().find_map(|accept| {
        let admitted = able.iter().filter(|candidate| accept.admits(&candidate.endpoint, pick));
        admitted.min_by(|a, b| distance(a).total_cmp(&distance(b))).copied()
    })
}

/// Reads a version as labels write it: `v1`, `1.2`, `1.2.3-rc1`.
fn lenient_version(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let missing = 2usize.checked_sub(text.split(['-', '+']).next()?.matches('.').count())?;
    match missing {
        0 => Version::parse(text).ok(),
        _ if text.contains(['-', '+']) => None,
        _ => Version::parse(&format!("{text}{}", ".0".repeat(missing))).ok(),
    }
}

/// A JSON string literal.
pub(crate) fn json_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
