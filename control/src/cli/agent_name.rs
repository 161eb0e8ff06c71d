//! An agent as the arguments name it: `NAMESPACE/NAME`, or `NAME` with `-n`.

use clap::Args;
use pilotfish_config::raw::nearest;

use super::failed::Failed;

/// The arguments.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// The agent: NAMESPACE/NAME, or NAME with -n
    #[arg(value_name = "AGENT")]
    agent: String,

    /// Its namespace [default: default]
    #[arg(short = 'n', long, value_name = "NAME")]
    namespace: Option<String>,
}

impl AgentArgs {
    /// `namespace/name`.
    ///
    /// # Errors
    /// It is no name, or there are two namespaces.
    pub fn full(&self) -> Result<String, Failed> {
        full(&self.agent, self.namespace.as_deref())
    }
}

/// `namespace/name` of what an argument and `-n` say.
///
/// # Errors
/// It is no name, or there are two namespaces.
pub fn full(agent: &str, namespace: Option<&str>) -> Result<String, Failed> {
    let wrong = |why: &str| Failed::usage(format!("`{}` {why}", agent.escape_debug()));
    match (agent.split_once('/'), namespace) {
        (Some((own, _)), Some(given)) if own != given => {
            Err(wrong(&format!("names a namespace, and -n another: {}", given.escape_debug())))
        }
        (Some((own, name)), _) if own.is_empty() || name.is_empty() || name.contains('/') => {
            Err(wrong("is no agent: NAMESPACE/NAME, or NAME with -n"))
        }
        (Some(_), _) => Ok(agent.to_owned()),
        (None, _) if agent.is_empty() => Err(wrong("is no agent: NAMESPACE/NAME, or NAME with -n")),
        (None, namespace) => Ok(format!("{}/{agent}", namespace.unwrap_or("default"))),
    }
}

/// The known agent (`namespace/name`) that was probably meant: the one of that name in another namespace, or the nearest in letters.
pub fn near<'k>(agent: &str, known: impl Iterator<Item = &'k str> + Clone) -> Option<&'k str> {
    let name = |full: &str| full.rsplit('/').next().map(str::to_owned);
    let mut same = known.clone().filter(|own| name(own) == name(agent));
    same.next().or_else(|| nearest(agent, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_elsewhere_is_nearer_than_other_letters() {
        let near = |agent| near(agent, ["default/wed", "production/web"].into_iter());
        assert_eq!(near("default/web"), Some("production/web"));
        assert_eq!(near("default/weed"), Some("default/wed"));
        assert_eq!(near("default/translator"), None);
    }

    #[test]
    fn a_name_has_one_namespace() {
        assert_eq!(full("chat", None).unwrap(), "default/chat");
        assert_eq!(full("chat", Some("production")).unwrap(), "production/chat");
        assert_eq!(full("production/chat", Some("production")).unwrap(), "production/chat");
        for (agent, namespace) in
            [("production/chat", Some("default")), ("a/b/c", None), ("/b", None), ("a/", None), ("", None)]
        {
            assert!(full(agent, namespace).is_err(), "{agent}");
        }
    }
}
