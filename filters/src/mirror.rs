//! Mirroring: copies of a share of the calls.

use crate::plan::Target;
use crate::share::Share;

/// One destination of copies.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Where to.
    pub target: Target,
    /// Of how many calls; each destination is drawn apart from the others.
    pub share: Share,
}

/// The authority of a copy: `-shadow` at the end of the host, before the port, as Envoy does, so that a log can tell copies from
/// calls. An address in brackets has no place for it and stays.
pub fn shadow_authority(authority: &str) -> String {
    match authority.split_once(':') {
        _ if authority.starts_with('[') => authority.to_owned(),
        Some((host, port)) => format!("{host}-shadow:{port}"),
        None => format!("{authority}-shadow"),
    }
}

/// Whether a header is left out of copies: what only says something to Envoy, and what sidecars tell each other of one call (that it is
/// to be done once). A copy is another call, whatever its original was.
pub fn is_left_out(name: &[u8]) -> bool {
    let begins = |start: &[u8]| name.get(..start.len()).is_some_and(|own| own.eq_ignore_ascii_case(start));
    name.eq_ignore_ascii_case(b"idempotency-key") || begins(b"x-envoy-") || begins(b"x-pilotfish-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_of_a_copy_says_so() {
        for (authority, shadow) in [
            ("a.b", "a.b-shadow"),
            ("a.b:8080", "a.b-shadow:8080"),
            ("[::1]:80", "[::1]:80"),
            ("", "-shadow"),
        ] {
            assert_eq!(shadow_authority(authority), shadow);
        }
    }

    #[test]
    fn a_key_is_not_copied() {
        for (name, left_out) in [
            ("Idempotency-Key", true),
            ("X-Envoy-Retry-On", true),
            ("x-pilotfish-idempotency-key", true),
            ("x-env", false),
            ("x-request-id", false),
        ] {
            assert_eq!(is_left_out(name.as_bytes()), left_out, "{name}");
        }
    }
}
