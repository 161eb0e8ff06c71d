//! identify: with `--local-secret-file`, an outbound call has to show the secret that only this sidecar's agent has:
//! other processes on the machine reach the same port, and would call as this agent.

use data_encoding::BASE64;
use pilotfish_filters::verdict::{Deny, Reason};
use zeroize::Zeroizing;

use crate::bootstrap::Secret;
use crate::http::RequestHead;
use crate::listen::Direction;

/// Shorter ones could be guessed.
const SHORTEST: usize = 16;

/// The field that carries it; hop-by-hop, so it never goes upstream.
const FIELD: &str = "proxy-authorization";

/// Reads the secret that a flag names.
///
/// # Errors
/// It cannot be read, or is too short.
pub fn read(path: &std::path::Path) -> Result<Secret, String> {
    let secret = Secret::read(path)?;
    if secret.expose().len() < SHORTEST {
        return Err(format!("{}: a local secret has at least {SHORTEST} characters", path.display()));
    }
    Ok(secret)
}

/// Whether the caller may use this listener; takes the secret out of the head.
///
/// # Errors
/// [`Reason::LocalSecret`], without it or with another one.
pub fn check(secret: Option<&Secret>, direction: Direction, head: &mut RequestHead) -> Result<(), Deny> {
    let Some(secret) = secret.filter(|_| direction == Direction::Outbound) else { return Ok(()) };
    let shown = head.headers.get_all(FIELD).any(|value| shows(value, secret.expose()));
    head.headers.remove(FIELD);
    if shown {
        return Ok(());
    }
    let how = "this sidecar asks for its agent's secret (--local-secret-file): send Proxy-Authorization, as \
               HTTP_PROXY=http://agent:SECRET@... does";
    Err(Deny::with(Reason::LocalSecret, how))
}

/// `Basic base64(anyone:secret)` or `Bearer secret`.
pub(crate) fn shows(value: &[u8], secret: &str) -> bool {
    let Some((scheme, rest)) = value.iter().position(|byte| *byte == b' ').map(|at| value.split_at(at))
    else {
        return false;
    };
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return same(rest, secret);
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return false;
    }
    let Ok(pair) = BASE64.decode(rest).map(Zeroizing::new) else { return false };
    let password = pair.iter().position(|byte| *byte == b':').map(|at| &pair[at + 1..]);
    password.is_some_and(|password| same(password, secret))
}

/// Takes as long for a secret that is nearly right as for one that is wrong from its first byte.
fn same(one: &[u8], secret: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one, secret.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemes_show_the_secret_and_nothing_else_does() {
        let secret = "0123456789abcdef";
        let basic = |pair: &str| format!("Basic {}", BASE64.encode(pair.as_bytes()));
        for good in [
            format!("Bearer {secret}"),
            format!("bearer  {secret} "),
            basic(&format!("x:{secret}")),
            basic(&format!(":{secret}")),
        ] {
            assert!(shows(good.as_bytes(), secret), "{good}");
        }
        let wrong = [
            String::new(),
            secret.to_owned(),
            format!("Bearer {secret}x"),
            "Bearer ".to_owned(),
            format!("Digest {secret}"),
            format!("Basic {secret}"),
            basic(secret),
            basic(&format!("{secret}:")),
            basic(&format!("x:{secret}:y")),
        ];
        for wrong in wrong {
            assert!(!shows(wrong.as_bytes(), secret), "{wrong}");
        }
    }
}
