//! The names in the index, each once: services, and what spans of them are called. Bounded, whatever is sent.

use std::collections::HashMap;
use std::sync::Arc;

/// Services, and pairs of a service and a span's name. What comes when there are so many is found by reading.
const SERVICES: usize = 4_096;
const PAIRS: usize = 65_536;
/// So much of a name is kept, bytes.
const LONGEST: usize = 200;

/// The pair that stands for all which found no place.
pub(super) const OTHER: u32 = 0;

/// A service and the name of a span of it.
#[derive(Debug, Clone)]
struct Pair {
    service: u32,
    name: Arc<str>,
}

#[derive(Debug)]
struct Service {
    name: Arc<str>,
    pairs: HashMap<Arc<str>, u32>,
}

/// The names.
#[derive(Debug)]
pub(super) struct Names {
    services: Vec<Service>,
    by_name: HashMap<Arc<str>, u32>,
    /// Freed ones have the service [`FREE`].
    pairs: Vec<Pair>,
    free: Vec<u32>,
    free_services: Vec<u32>,
}

const FREE: u32 = u32::MAX;

impl Names {
    pub(super) fn new() -> Names {
        let other = Service { name: "".into(), pairs: HashMap::new() };
        let pair = Pair { service: 0, name: "".into() };
        Names {
            services: vec![other],
            by_name: HashMap::new(),
            pairs: vec![pair],
            free: Vec::new(),
            free_services: Vec::new(),
        }
    }

    /// The number of a pair; [`OTHER`] when there is no place for it.
    pub(super) fn pair(&mut self, service: &str, name: &str) -> u32 {
        let (service, name) = (shortened(service), shortened(name));
        let at = match self.by_name.get(service) {
            Some(at) => *at,
            None => match self.new_service(service) {
                Some(at) => at,
                None => return OTHER,
            },
        };
        if let Some(pair) = self.services[at as usize].pairs.get(name) {
            return *pair;
        }
        let text = Arc::<str>::from(name);
        let pair = Pair { service: at, name: text.clone() };
        let number = match self.free.pop() {
            Some(number) => {
                self.pairs[number as usize] = pair;
                number
            }
            None if self.pairs.len() > PAIRS => return OTHER,
            None => {
                self.pairs.push(pair);
                (self.pairs.len() - 1) as u32
            }
        };
        self.services[at as usize].pairs.insert(text, number);
        number
    }

    fn new_service(&mut self, name: &str) -> Option<u32> {
        let text = Arc::<str>::from(name);
        let service = Service { name: text.clone(), pairs: HashMap::new() };
        let at = match self.free_services.pop() {
            Some(at) => {
                self.services[at as usize] = service;
                at
            }
            None if self.services.len() > SERVICES => return None,
            None => {
                self.services.push(service);
                (self.services.len() - 1) as u32
            }
        };
        self.by_name.insert(text, at);
        Some(at)
    }

    /// Service and name of a pair.
    pub(super) fn get(&self, pair: u32) -> (&str, &str) {
        let Some(pair) = self.pairs.get(pair as usize) else { return ("", "") };
        let service = self.services.get(pair.service as usize).map_or("", |service| &service.name);
        (service, &pair.name)
    }

    /// The service of a pair, as a number.
    pub(super) fn service(&self, pair: u32) -> u32 {
        self.pairs.get(pair as usize).map_or(0, |pair| pair.service)
    }

    /// Which pairs fit an agent (`name` or `namespace/name`) and a span's name.
    pub(super) fn fitting(&self, agent: Option<&str>, name: Option<&str>) -> Vec<bool> {
        let services: Vec<bool> =
            self.services.iter().map(|it| agent.is_none_or(|agent| is(&it.name, agent))).collect();
        let name = name.map(shortened);
        let fits = |pair: &Pair| {
            services.get(pair.service as usize).is_some_and(|fits| *fits)
                && name.is_none_or(|name| *pair.name == *name)
        };
        let mut fitting: Vec<bool> = self.pairs.iter().map(fits).collect();
        fitting[OTHER as usize] = false;
        fitting
    }

    /// All services, by name.
    pub(super) fn services(&self) -> Vec<String> {
        let used = self.services.iter().skip(1).filter(|service| !service.pairs.is_empty());
        let mut names: Vec<String> = used.map(|service| service.name.to_string()).collect();
        names.sort();
        names
    }

    /// What spans of a service are called, by name.
    pub(super) fn operations(&self, service: &str) -> Vec<String> {
        let Some(at) = self.by_name.get(shortened(service)) else { return Vec::new() };
        let mut names: Vec<String> =
            self.services[*at as usize].pairs.keys().map(|name| name.to_string()).collect();
        names.sort();
        names
    }

    /// Whether it is worth looking for names that nothing uses any more.
    pub(super) fn is_crowded(&self) -> bool {
        (self.pairs.len() - self.free.len()) * 2 > PAIRS
            || (self.services.len() - self.free_services.len()) * 2 > SERVICES
    }

    /// Forgets the pairs that are not used, and services without any.
    pub(super) fn keep(&mut self, used: &[bool]) {
        for (number, pair) in self.pairs.iter_mut().enumerate().skip(1) {
            if pair.service == FREE || used.get(number).is_some_and(|used| *used) {
                continue;
            }
            if let Some(service) = self.services.get_mut(pair.service as usize) {
                service.pairs.remove(&pair.name);
            }
            *pair = Pair { service: FREE, name: "".into() };
            self.free.push(number as u32);
        }
        for (at, service) in self.services.iter_mut().enumerate().skip(1) {
            if service.pairs.is_empty() && self.by_name.get(&service.name) == Some(&(at as u32)) {
                self.by_name.remove(&service.name);
                service.name = "".into();
                self.free_services.push(at as u32);
            }
        }
    }

    /// How many numbers of pairs there are.
    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// About how many bytes they take.
    pub(super) fn bytes(&self) -> usize {
        let names: usize = self.pairs.iter().map(|pair| pair.name.len() + 96).sum();
        names + self.services.len() * 256
    }
}

/// Whether a service is the one that is meant: by name alone those of every namespace are.
pub(super) fn is(service: &str, agent: &str) -> bool {
    let agent = shortened(agent);
    service == agent
        || (!agent.contains('/') && service.rsplit_once('/').is_some_and(|(_, name)| name == agent))
}

/// The start of a text, at most so long.
pub(super) fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_come_back_when_others_go() {
        let mut names = Names::new();
        let first = names.pair("a/b", "GET /");
        assert_eq!((names.pair("a/b", "GET /"), names.get(first)), (first, ("a/b", "GET /")));
        for n in 0..PAIRS + 100 {
            names.pair("flood", &n.to_string());
        }
        assert_eq!(names.pair("a/b", "one more"), OTHER);
        assert!(names.is_crowded() && names.bytes() < 16 << 20);
        let mut used = vec![false; names.len()];
        used[first as usize] = true;
        names.keep(&used);
        assert_ne!(names.pair("a/b", "one more"), OTHER);
        assert_eq!(names.get(first), ("a/b", "GET /"));
        assert_eq!(names.operations("a/b"), ["GET /", "one more"]);
        assert_eq!(names.services(), ["a/b"]);
        for n in 0..SERVICES + 100 {
            names.pair(&format!("s{n}"), "x");
        }
        assert_eq!(names.pair("yet another", "x"), OTHER);
        let mut used = vec![false; names.len()];
        used[first as usize] = true;
        names.keep(&used);
        assert_ne!(names.pair("yet another", "x"), OTHER);
        assert_eq!(names.services(), ["a/b", "yet another"]);
    }

    #[test]
    fn an_agent_is_meant_by_name_or_in_full() {
        assert!(is("prod/chat", "chat") && is("prod/chat", "prod/chat") && is("chat", "chat"));
        assert!(!is("prod/chat", "test/chat") && !is("prod/chat", "hat") && !is("chat", "prod/chat"));
        let long = "ä".repeat(300);
        assert!(is(shortened(&long), &long));
    }
}
