//! Who may ask for a call to be explained: `--explain-callers`.

use std::str::FromStr;

/// Callers whose `agent-explain: 1` is heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExplainCallers {
    /// The agent of this sidecar.
    own: bool,
    /// Whoever calls.
    anyone: bool,
    /// Other agents: `namespace/name` or `namespace/*`.
    agents: Box<[Box<str>]>,
}

impl ExplainCallers {
    /// Whether the agent of this sidecar may.
    pub fn admits_own(&self) -> bool {
        self.own || self.anyone
    }

    /// Whether a caller from the mesh may, by the name that it proved.
    pub fn admits(&self, proven: Option<&str>) -> bool {
        self.anyone || proven.is_some_and(|name| self.agents.iter().any(|own| covers(own, name)))
    }
}

fn covers(own: &str, name: &str) -> bool {
    match own.strip_suffix("/*") {
        Some(namespace) => name.split_once('/').is_some_and(|(of, _)| of == namespace),
        None => own == name,
    }
}

impl FromStr for ExplainCallers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut callers = ExplainCallers::default();
        let mut agents = Vec::new();
        for one in text.split(',').map(str::trim).filter(|one| !one.is_empty() && *one != "none") {
            match one {
                "self" => callers.own = true,
                "*" => callers.anyone = true,
                agent => match agent.split_once('/') {
                    Some((namespace, name))
                        if !namespace.is_empty()
                            && !name.is_empty()
                            && !name.contains('/')
                            && namespace != "*" =>
                    {
                        agents.push(agent.into());
                    }
                    Some(_) => return Err(format!("`{agent}` is no NAMESPACE/AGENT")),
                    None => {
                        return Err(format!(
                            "`{agent}` is none of self, *, none, NAMESPACE/AGENT; an agent has its namespace: default/{agent}"
                        ));
                    }
                },
            }
        }
        callers.agents = agents.into();
        Ok(callers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_are_named_may() {
        let callers: ExplainCallers = "self, prod/web,staging/*".parse().unwrap();
        assert!(
            callers.admits_own() && callers.admits(Some("prod/web")) && callers.admits(Some("staging/x"))
        );
        assert!(
            !callers.admits(Some("prod/web2"))
                && !callers.admits(Some("staging2/x"))
                && !callers.admits(None)
        );
        let none: ExplainCallers = "none".parse().unwrap();
        assert!(!none.admits_own() && !none.admits(Some("none")));
        let all: ExplainCallers = "*".parse().unwrap();
        assert!(all.admits_own() && all.admits(None));
    }

    #[test]
    fn what_names_nobody_is_told() {
        for (text, what) in [
            ("web", "default/web"),
            ("/x", "no NAMESPACE/AGENT"),
            ("a/b/c", "no NAMESPACE"),
            ("*/x", "no NAMESPACE"),
        ] {
            let error = text.parse::<ExplainCallers>().unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
