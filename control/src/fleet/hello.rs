//! Whether a hello is taken: who may say it, and the bounds of what it may hold.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use pilotfish_config::model::Capability;
use pilotfish_config::wire::{Hello, MAJOR, MINOR, Refused, RefusedVersion, State};
use pilotfish_identity::{SpiffeId, TrustDomain};

/// At most this many labels (Kubernetes has no bound; its objects rarely have 20).
const MOST_LABELS: usize = 64;
/// A label's key, in bytes: Kubernetes' prefix of 253, a slash, a name of 63.
const LONGEST_LABEL: usize = 317;
/// A label's value, in bytes; Kubernetes' 63 with room for others' habits.
const LONGEST_VALUE: usize = 256;
/// At most this many capabilities.
const MOST_CAPABILITIES: usize = 256;
/// Locality, build, detail: text for people, in bytes.
const LONGEST_TEXT: usize = 256;
/// A share above this is a mistake.
const HEAVIEST: u32 = 1_000_000;
/// At most this many reasons of a refusal are kept.
const MOST_REASONS: usize = 20;
/// Each of at most this many bytes.
const LONGEST_REASON: usize = 1024;

/// Whether `hello` may come from `peer`, and is within bounds.
///
/// # Errors
/// What the sidecar is told.
pub(super) fn check(hello: &Hello, peer: &SpiffeId, own: &TrustDomain) -> Result<(), Refused> {
    let no = |reason: String| Err(Refused { reason, retry: false });
    if hello.versions.major != MAJOR {
        let (theirs, minor) = (hello.versions.major, hello.versions.minor);
        return no(format!(
            "the sidecar speaks version {theirs}.{minor} of the protocol, this control plane {MAJOR}.{MINOR}: \
             update the older of the two"
        ));
    }
    if peer.trust_domain() != own {
        return no(format!("{peer} is not of the trust domain {own}"));
    }
    if peer.as_agent() != Some((&hello.namespace, &hello.agent)) {
        return no(format!(
            "the certificate is for {peer}, not for the agent {} in the namespace {}: join with a token for it",
            clipped(&hello.agent, 64),
            clipped(&hello.namespace, 64)
        ));
    }
    match bounds(hello) {
        Ok(()) => Ok(()),
        Err(reason) => no(reason),
    }
}

fn bounds(hello: &Hello) -> Result<(), String> {
    let hexadecimal = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if hello.instance.len() != 32 || !hexadecimal(&hello.instance) {
        return Err("`instance` has to be 32 hexadecimal digits".into());
    }
    if hello.dedup_epoch.as_ref().is_some_and(|epoch| epoch.len() != 32 || !hexadecimal(epoch)) {
        return Err("`dedup_epoch` has to be 32 hexadecimal digits".into());
    }
    labels(&hello.labels)?;
    if hello.locality.as_ref().is_some_and(|locality| locality.len() > LONGEST_TEXT) {
        return Err(format!("`locality` has over {LONGEST_TEXT} bytes"));
    }
    if !(1..=HEAVIEST).contains(&hello.weight) {
        return Err(format!("`weight` has to be 1 to {HEAVIEST}"));
    }
    if hello.capabilities.len() > MOST_CAPABILITIES {
        return Err(format!("more than {MOST_CAPABILITIES} capabilities"));
    }
    for capability in &hello.capabilities {
        Capability::parse(capability)?;
    }
    hello.address.map_or(Ok(()), address)
}

fn labels(labels: &BTreeMap<String, String>) -> Result<(), String> {
    if labels.len() > MOST_LABELS {
        return Err(format!("more than {MOST_LABELS} labels"));
    }
    let bad = |(key, value): &(&String, &String)| {
        key.is_empty()
            || key.len() > LONGEST_LABEL
            || value.len() > LONGEST_VALUE
            || key.chars().chain(value.chars()).any(char::is_control)
    };
    match labels.iter().find(bad) {
        Some((key, _)) => Err(format!(
            "the label `{}` is not taken: keys have 1 to {LONGEST_LABEL} bytes, values at most {LONGEST_VALUE}, no \
             control characters",
            clipped(key, 64)
        )),
        None => Ok(()),
    }
}

/// Others connect there, so it must be a place that can be connected to; link-local ones are where clouds keep
/// their metadata.
fn address(address: SocketAddr) -> Result<(), String> {
    let ip = address.ip();
    let odd = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    match odd || ip.is_unspecified() || ip.is_multicast() || address.port() == 0 {
        true => {
            Err(format!("others cannot connect to `{address}`: give the address of the inbound listener"))
        }
        false => Ok(()),
    }
}

/// What a sidecar says of its updates, within bounds.
pub(super) fn bounded(mut state: State) -> State {
    if let Some(refused) = &mut state.refused {
        refused.reasons.truncate(MOST_REASONS);
        refused.reasons.iter_mut().for_each(|reason| *reason = clipped(reason, LONGEST_REASON));
    }
    state
}

/// A text for people, within bounds and on one line.
pub(super) fn text(text: &str) -> String {
    clipped(text, LONGEST_TEXT)
}

fn clipped(text: &str, most: usize) -> String {
    let mut out: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect();
    while out.len() > most {
        out.pop();
    }
    out
}

/// A refusal for people: its version is left as the sidecar said it.
pub(super) fn first_reason(refused: &RefusedVersion) -> &str {
    refused.reasons.first().map_or("no reason given", String::as_str)
}
