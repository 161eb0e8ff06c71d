//! Join tokens as text: `pft1.<id>.<secret>.<fingerprint of the root>`.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use zeroize::Zeroizing;

use crate::bundles::Fingerprint;

const VERSION: &str = "pft1";
/// Longer than any token.
const LONGEST: usize = 256;

/// A text is no join token. Does not show it: it may be another secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAToken;

impl fmt::Display for NotAToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("this is no join token: it begins with `pft1.` and comes from `pilotfish token create`")
    }
}

impl std::error::Error for NotAToken {}

/// What a sidecar is given to join: a secret, and the fingerprint by which it knows the control plane.
#[derive(Clone)]
pub struct JoinToken {
    /// Which token: for look-up and for logs; not secret.
    pub id: [u8; 8],
    /// What proves that the bearer was given it.
    pub secret: Zeroizing<[u8; 32]>,
    /// SHA-256 of the root certificate that vouches for the control plane.
    pub root: Fingerprint,
}

impl JoinToken {
    /// Reads a token.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<JoinToken, NotAToken> {
        let text = text.trim();
        let mut parts = text.split('.');
        if text.len() > LONGEST || parts.next() != Some(VERSION) {
            return Err(NotAToken);
        }
        let mut id = [0; 8];
        let mut secret = Zeroizing::new([0; 32]);
        let mut root = [0; 32];
        copy(&mut id, HEXLOWER.decode(part(parts.next())?))?;
        copy(secret.as_mut(), BASE64URL_NOPAD.decode(part(parts.next())?))?;
        copy(&mut root, HEXLOWER.decode(part(parts.next())?))?;
        if parts.next().is_some() { Err(NotAToken) } else { Ok(JoinToken { id, secret, root }) }
    }

    /// The text. It is a secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(BASE64URL_NOPAD.encode(self.secret.as_ref()));
        let (id, root) = (HEXLOWER.encode(&self.id), HEXLOWER.encode(&self.root));
        Zeroizing::new(format!("{VERSION}.{id}.{}.{root}", secret.as_str()))
    }
}

fn part(part: Option<&str>) -> Result<&[u8], NotAToken> {
    part.map(str::as_bytes).ok_or(NotAToken)
}

fn copy<E>(into: &mut [u8], from: Result<Vec<u8>, E>) -> Result<(), NotAToken> {
    let from = Zeroizing::new(from.map_err(|_| NotAToken)?);
    if into.len() != from.len() {
        return Err(NotAToken);
    }
    into.copy_from_slice(&from);
    Ok(())
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "JoinToken({})", HEXLOWER.encode(&self.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_shows_no_secret() {
        let token = JoinToken { id: [1; 8], secret: Zeroizing::new([0xab; 32]), root: [3; 32] };
        let text = token.to_text();
        let read = JoinToken::parse(&format!("  {}\n", text.as_str())).unwrap();
        assert_eq!((read.id, *read.secret, read.root), (token.id, *token.secret, token.root));
        assert_eq!(format!("{token:?}"), "JoinToken(0101010101010101)");
        assert_eq!(text.split('.').count(), 4);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = JoinToken { id: [1; 8], secret: Zeroizing::new([2; 32]), root: [3; 32] }.to_text();
        let good = good.as_str();
        assert!(JoinToken::parse(good).is_ok());
        for bad in [
            "",
            "pft1",
            "pft1...",
            &good[..good.len() - 2],
            &format!("{good}.x"),
            &good.replacen('1', "2", 1),
        ] {
            assert!(JoinToken::parse(bad).is_err(), "{bad}");
        }
        assert!(JoinToken::parse(&"a".repeat(1 << 20)).is_err());
    }
}
