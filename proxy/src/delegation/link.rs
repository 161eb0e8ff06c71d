//! One link: what it says, how it is written, signed and read.
//!
//! `STATEMENT.SIGNATURE[.CERTIFICATES]`, each in base64url without padding: JSON, a signature as TLS 1.3 has them, and the signer's
//! chain, each certificate after its length in two bytes.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64URL_NOPAD;
use pilotfish_filters::delegation::Delegated;
use pilotfish_identity::Credentials;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{ACTED_FOR, LIFETIME, LONGEST, MOST_LINKS};

/// What stands before every statement that is signed: nothing else that a key signs begins so.
const CONTEXT: &[u8] = b"pilotfish delegation 1\n";
/// Room that a further link takes, at most.
const LINK: usize = 4 << 10;

/// What a link says. Names are SPIFFE IDs without `spiffe://`, times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Who calls, and signs.
    #[serde(rename = "i")]
    pub caller: String,
    /// Who is called.
    #[serde(rename = "a")]
    pub called: String,
    /// The digest of all links before; empty: it is the first.
    #[serde(rename = "p", default, skip_serializing_if = "String::is_empty")]
    pub before: String,
    /// Where it began, when that was a token: its `ISSUER/SUBJECT`.
    #[serde(rename = "o", default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// When it was signed.
    #[serde(rename = "t")]
    pub signed: u64,
    /// Until when it may be shown.
    #[serde(rename = "e")]
    pub expires: u64,
    /// When the call that is acted for was received; 0: there is none.
    #[serde(rename = "r", default, skip_serializing_if = "is_zero")]
    pub received: u64,
    /// Agents that it may be for, which nobody else signed; only in a first link.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub unproved: Option<Vec<String>>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A link as it was read; nothing of it is verified.
#[derive(Debug)]
pub struct Link {
    /// What it says.
    pub statement: Statement,
    /// What was signed.
    pub signed: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
    /// The signer's chain, leaf first, when it is there.
    pub certificates: Option<Vec<CertificateDer<'static>>>,
}

impl Link {
    /// Reads a link.
    pub fn read(text: &str) -> Option<Link> {
        let mut parts = text.split('.').map(|part| BASE64URL_NOPAD.decode(part.as_bytes()));
        let statement = parts.next()?.ok()?;
        let signature = parts.next()?.ok()?;
        let certificates = match parts.next() {
            None => None,
            Some(part) => Some(read_chain(&part.ok()?)?),
        };
        if parts.next().is_some() {
            return None;
        }
        let signed = [CONTEXT, &statement].concat();
        Some(Link { statement: serde_json::from_slice(&statement).ok()?, signed, signature, certificates })
    }
}

/// The digest by which a link names those before it.
pub fn digest_of(links: &str) -> String {
    BASE64URL_NOPAD.encode(digest(&SHA256, links.as_bytes()).as_ref())
}

/// A whole header whose newest link says that `own` calls `called`, for whom `acting` says. `None`: the key signs no statements.
pub fn write(own: &Credentials, called: &str, acting: Option<&Delegated>, now: u64) -> Option<String> {
    let kept = acting.filter(|acting| {
        let links = &acting.links;
        let fits = links.len() + LINK <= LONGEST && links.split('~').count() < MOST_LINKS;
        !links.is_empty() && fits && now <= acting.signed.saturating_add(ACTED_FOR)
    });
    // What cannot be shown is said, and that it is not proved.
    let said = acting.filter(|acting| kept.is_none() && (acting.uncertain || !acting.agents.is_empty()));
    let statement = Statement {
        caller: own.id.as_str().trim_start_matches("spiffe://").to_owned(),
        called: called.to_owned(),
        before: kept.map(|kept| digest_of(&kept.links)).unwrap_or_default(),
        origin: acting.filter(|_| said.is_none()).map(|acting| acting.origin.to_string()).unwrap_or_default(),
        signed: now,
        expires: now + LIFETIME,
        received: kept.map_or(0, |kept| kept.received),
        unproved: said.map(|said| said.agents.iter().map(|agent| agent.id.to_string()).collect()),
    };
    // Serializing plain texts and numbers cannot fail.
    let statement = serde_json::to_vec(&statement).unwrap_or_default();
    let signature = own.sign(&[CONTEXT, &statement].concat())?;
    let mut text = kept.map(|kept| format!("{}~", kept.links)).unwrap_or_default();
    BASE64URL_NOPAD.encode_append(&statement, &mut text);
    text.push('.');
    BASE64URL_NOPAD.encode_append(&signature, &mut text);
    Some(text)
}

/// Adds the signer's certificates to the newest link.
pub fn add_certificates(text: &mut String, chain: &[CertificateDer<'_>]) {
    let mut bytes = Vec::new();
    for der in chain {
        // Chains are 64 KiB at most.
        bytes.extend(u16::try_from(der.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(der.as_ref());
    }
    text.push('.');
    BASE64URL_NOPAD.encode_append(&bytes, text);
}

fn read_chain(mut bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut chain = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (der, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        chain.push(CertificateDer::from(der.to_vec()));
        bytes = rest;
    }
    (!chain.is_empty()).then_some(chain)
}
