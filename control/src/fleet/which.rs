//! Which sidecars somebody means: `agent`, `namespace/agent`, `namespace/*`; several separated by commas.

use super::registration::Facts;

/// A choice of sidecars; empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Which(Vec<(Option<String>, String)>);

/// The most names in one choice.
const MOST: usize = 100;

impl Which {
    /// Reads a list of names.
    ///
    /// # Errors
    /// One of them is none.
    pub fn parse(text: &str) -> Result<Which, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let which: Vec<_> = names.map(one).collect::<Result<_, _>>()?;
        if which.len() > MOST {
            return Err(format!("more than {MOST} agents; leave the agent out to see all"));
        }
        Ok(Which(which))
    }

    /// Whether a sidecar's agent is one of them.
    pub(super) fn means(&self, facts: &Facts) -> bool {
        self.means_agent(&facts.namespace, &facts.agent)
    }

    fn means_agent(&self, namespace: &str, agent: &str) -> bool {
        let fits = |(of, name): &(Option<String>, String)| {
            of.as_deref().is_none_or(|of| of == namespace) && (name == "*" || name == agent)
        };
        self.0.is_empty() || self.0.iter().any(fits)
    }
}

fn one(name: &str) -> Result<(Option<String>, String), String> {
    let (namespace, agent) = match name.split_once('/') {
        Some((namespace, agent)) => (Some(namespace), agent),
        None => (None, name),
    };
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 253
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    if namespace.is_some_and(|namespace| !part(namespace)) || !(part(agent) || agent == "*") {
        return Err(format!(
            "`{}` is no agent: write AGENT, NAMESPACE/AGENT or NAMESPACE/*",
            name.escape_debug()
        ));
    }
    Ok((namespace.map(str::to_owned), agent.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_agents() {
        let which = Which::parse("chat, prod/web,staging/*").unwrap();
        for (namespace, agent, meant) in [
            ("default", "chat", true),
            ("prod", "chat", true),
            ("prod", "web", true),
            ("default", "web", false),
            ("staging", "x", true),
        ] {
            assert_eq!(which.means_agent(namespace, agent), meant, "{namespace}/{agent}");
        }
        assert!(Which::parse("").unwrap().means_agent("a", "b"));
        for bad in ["a/b/c", "/a", "a/", "a b", "a\u{202e}"] {
            assert!(Which::parse(bad).is_err(), "{bad}");
        }
    }
}
