//! TrustDomain: a name and PEM certificates, nothing else.

use crate::model::{Meta, TrustDomain};
use crate::raw::{Text, TrustDomainSpec};
use crate::yaml::clip_text;

use super::base64;
use super::check::Cx;
use super::service::is_trust_domain;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// Reads one.
pub(super) fn trust_domain<'n>(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &TrustDomainSpec<'n>,
) -> Option<TrustDomain> {
    let node = spec.trust_domain.map_or(spec.node, |name| name.node);
    let name = spec.trust_domain.map_or(meta.name(), |name| name.value).to_owned();
    if !is_trust_domain(&name) {
        let message = format!("`{}` is not a trust domain", clip_text(&name));
        cx.error_hint(node, message, "lower-case letters, digits, `.`, `-` and `_`, without `spiffe://`");
    }
    let bundle = spec.bundle?;
    if let Err(why) = certificates(bundle.value) {
        refuse(cx, bundle, why);
    }
    Some(TrustDomain { meta, name, bundle: bundle.value.to_owned() })
}

/// One name, one bundle: two would leave it to chance who is trusted.
pub(super) fn unique(cx: &mut Cx<'_>, all: &[(TrustDomain, crate::yaml::Node<'_>)]) {
    for (at, (domain, node)) in all.iter().enumerate() {
        if let Some((first, _)) = all[..at].iter().find(|(first, _)| first.name == domain.name) {
            let message = format!("the trust domain {} is already at {}", domain.name, first.meta.source);
            cx.error_hint(*node, message, "put all its certificates into one bundle");
        }
    }
}

/// Never shows what is in the bundle: it may be a key by mistake.
fn refuse(cx: &mut Cx<'_>, bundle: Text<'_>, why: String) {
    cx.error_hint(bundle.node, why, "write the PEM certificates of its roots: -----BEGIN CERTIFICATE-----");
}

/// Goes through the PEM blocks (RFC 7468); text between them is a comment.
fn certificates(text: &str) -> Result<(), String> {
    let mut count = 0;
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line.starts_with(END) {
            return Err("the bundle has an end without a beginning".into());
        }
        let Some(label) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DASHES)) else {
            continue;
        };
        if label.contains("PRIVATE KEY") {
            return Err(
                "the bundle has a private key: remove it, and renew the key, it is no secret any more".into(),
            );
        }
        if label != "CERTIFICATE" {
            return Err(format!("the bundle has a block `{}`, not a certificate", clip_text(label)));
        }
        count += 1;
        let mut body = String::new();
        loop {
            match lines.next() {
                None => return Err(format!("certificate {count} of the bundle has no end")),
                Some("-----END CERTIFICATE-----") => break,
                Some(line) if line.starts_with(DASHES) => {
                    return Err(format!("certificate {count} of the bundle has no end"));
                }
                Some(line) => body.push_str(line),
            }
        }
        if !base64::decode(&body).is_some_and(|der| is_one_sequence(&der)) {
            return Err(format!("certificate {count} of the bundle is damaged"));
        }
    }
    if count == 0 { Err("the bundle has no certificate".into()) } else { Ok(()) }
}

/// Whether the bytes are one ASN.1 SEQUENCE in DER and nothing behind it.
fn is_one_sequence(der: &[u8]) -> bool {
    let (length, header) = match der {
        [0x30, short @ 0..=0x7f, ..] => (usize::from(*short), 2),
        [0x30, 0x81, one, ..] => (usize::from(*one), 3),
        [0x30, 0x82, high, low, ..] => (usize::from(u16::from_be_bytes([*high, *low])), 4),
        _ => return false,
    };
    length > 0 && der.len() == header + length
}
