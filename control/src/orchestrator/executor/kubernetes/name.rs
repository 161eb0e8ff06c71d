//! Names and labels that Kubernetes takes, for agents and regions that may be called otherwise.
//!
//! An object's name ends with a part of the digest of its group, so `nlp_worker` and `nlp-worker` are two, in one namespace of
//! the cluster too; it is the same after each restart, whoever leads.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use crate::placement::world::Group;

/// Letters of the readable part: with the digest, and what Deployments add for their pods, a pod's name stays below the
/// 63 that its host name may have.
const READABLE: usize = 36;

/// The name of a group's objects.
pub fn object(group: &Group) -> String {
    let mut readable = String::new();
    let words = group
        .agent
        .chars()
        .chain(group.region.iter().flat_map(|region| ['-'].into_iter().chain(region.chars())));
    for c in words.map(|c| c.to_ascii_lowercase()) {
        let c = if c.is_ascii_alphanumeric() { c } else { '-' };
        // It begins with a letter (a Service's name would have to, too), and no two hyphens follow each other.
        let fits =
            if readable.is_empty() { c.is_ascii_lowercase() } else { c != '-' || !readable.ends_with('-') };
        if fits && readable.len() < READABLE {
            readable.push(c);
        }
    }
    let readable = readable.trim_end_matches('-');
    let readable = if readable.is_empty() { "agent" } else { readable };
    format!("{readable}-{}", short(&group.id))
}

/// A text as a label's value: itself when it is one, else what of it is, and a part of its digest.
pub fn label(text: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    if text.len() <= 63
        && text.chars().all(good)
        && ends(text.chars().next())
        && ends(text.chars().next_back())
    {
        return text.to_owned();
    }
    let kept: String = text.chars().map(|c| if good(c) { c } else { '-' }).take(50).collect();
    let kept = kept.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    format!("{kept}{}{}", if kept.is_empty() { "" } else { "-" }, short(text))
}

fn short(text: &str) -> String {
    HEXLOWER.encode(&digest(&SHA256, text.as_bytes()).as_ref()[..4])
}

#[cfg(test)]
mod tests {
    use super::super::tests::group;
    use super::*;

    fn named(namespace: &str, agent: &str, region: Option<&str>) -> String {
        object(&group(namespace, agent, region))
    }

    #[test]
    fn names_are_dns_labels_that_differ_when_their_groups_do() {
        let long = "a".repeat(63);
        let all = [
            named("default", "nlp-worker", None),
            named("default", "nlp_worker", None),
            named("default", "NLP_worker", None),
            named("production", "nlp-worker", None),
            named("default", "nlp-worker", Some("us-east-1")),
            named("default", "nlp", Some("worker")),
            named("default", "7_of_9", None),
            named("default", "___", None),
            named("default", &long, None),
            named("default", &long, Some("eu")),
        ];
        for (at, name) in all.iter().enumerate() {
            assert!(name.len() <= 45, "{name}");
            assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{name}"
            );
            assert!(!all[..at].contains(name), "{name} is there twice");
        }
        assert!(all[1].starts_with("nlp-worker-"), "{}", all[1]);
        assert!(all[6].starts_with("of-9-"), "{}", all[6]);
        // Stable: another name would start every agent anew.
        assert_eq!(all[1], named("default", "nlp_worker", None));
    }

    #[test]
    fn labels_are_kept_where_they_can_be() {
        assert_eq!(label("nlp_worker.v1"), "nlp_worker.v1");
        assert_eq!(label(""), "");
        for bad in ["a/b", "-a", "a-", "ä", &"x".repeat(64), "/"] {
            let made = label(bad);
            assert!(made.len() <= 63 && made == label(&made), "{bad}: {made}");
        }
        assert_ne!(label("a/b"), label("a:b"));
    }
}
