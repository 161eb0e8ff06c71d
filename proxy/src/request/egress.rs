//! Where an agent may go by `HTTP_PROXY` and `CONNECT` when no configuration names the host.
//!
//! Decided on the address that was *resolved*, not on the name: a name may point anywhere. Agents run tool code
//! that they were talked into, so the sidecar never becomes the way to services that trust loopback, to a
//! cloud's metadata service on link-local addresses, or to the mesh's own ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use pilotfish_filters::plan::Plan;
use pilotfish_filters::verdict::{Deny, Reason};

use crate::http::{Form, RequestHead};
use crate::resolve::Unresolved;
use crate::server::Shared;

/// Ports that the mesh's own processes listen on by default: the sidecar's admin, outbound, inbound and status
/// ports and the control plane's push and page ports.
const MESH_PORTS: [u16; 6] = [15000, 15001, 15006, 15012, 15014, 15020];

/// The addresses of the host that a request names, those that it must not reach left out. `named` says that a
/// ServiceEntry names the host itself, which allows any address.
///
/// # Errors
/// `egress-not-allowed` when no address is left; `connect-failed` when the name does not resolve; `bad-request`
/// for `https` in absolute form, which would need TLS that the sidecar does not speak for its agent.
pub async fn resolve(
    head: &RequestHead,
    plan: &Plan,
    shared: &Shared,
    named: bool,
) -> Result<Vec<SocketAddr>, Deny> {
    if head.form() == Form::Absolute && head.scheme() == "https" {
        return Err(Deny::with(Reason::BadRequest, "https through a proxy is asked for by CONNECT"));
    }
    let (host, port) = split(head)?;
    let found = shared.dns.lookup(host).await;
    let found =
        found.map_err(|Unresolved(why)| Deny::with(Reason::ConnectFailed, format!("{host}: {why}")))?;
    let own =
        shared.listening.get().map(|listening| [listening.outbound, listening.inbound, listening.admin]);
    let own = own.as_ref().map_or(&[][..], |own| own);
    let mut allowed = Vec::with_capacity(found.len());
    let mut refusal = Deny::from(Reason::NoEndpoint);
    for ip in found.iter() {
        let address = SocketAddr::new(*ip, port);
        match check(address, own) {
            Err(deny) if !named && !plan.egress().names(address) => refusal = deny,
            _ => allowed.push(address),
        }
    }
    if allowed.is_empty() { Err(refusal) } else { Ok(allowed) }
}

/// Whether the request is for this very host, its port aside.
pub fn is_host(head: &RequestHead, host: &str) -> bool {
    split(head).is_ok_and(|(asked, _)| asked.eq_ignore_ascii_case(host))
}

/// The host that a request names, without its port.
pub fn host(head: &RequestHead) -> Result<&str, Deny> {
    split(head).map(|(host, _)| host)
}

fn split(head: &RequestHead) -> Result<(&str, u16), Deny> {
    let authority = head.authority();
    let bad = || Deny::with(Reason::BadRequest, format!("{authority:?} is not host:port"));
    let after_brackets = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[after_brackets..].rfind(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(after_brackets + colon);
            Ok((host, port[1..].parse().ok().filter(|port| *port != 0).ok_or_else(bad)?))
        }
        None if head.form() == Form::Authority || authority.is_empty() => Err(bad()),
        None => Ok((authority, 80)),
    }
}

/// Refuses an address that an unregistered destination must not reach.
///
/// `own` are the addresses that this sidecar listens on, which need not be the default ports.
///
/// # Errors
/// `egress-not-allowed` with a sentence that says why.
pub fn check(address: SocketAddr, own: &[SocketAddr]) -> Result<(), Deny> {
    let forbidden = match canonical(address.ip()) {
        ip if ip.is_loopback() => Some("a loopback address"),
        ip if ip.is_unspecified() => Some("an unspecified address"),
        ip if is_link_local(ip) => Some("a link-local address"),
        ip if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) => {
            Some("a multicast or broadcast address")
        }
        _ if MESH_PORTS.contains(&address.port()) || own.iter().any(|own| own.port() == address.port()) => {
            Some("one of the mesh's own ports")
        }
        _ => None,
    };
    match forbidden {
        None => Ok(()),
        Some(what) => Err(Deny::with(
            Reason::EgressNotAllowed,
            format!("{address} is {what}; a ServiceEntry that names it would allow it"),
        )),
    }
}

/// An IPv4 address that is written as IPv6 is judged as IPv4.
fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped().or_else(|| embedded_v4(v6)) {
            Some(v4) => IpAddr::V4(v4),
            None => ip,
        },
        IpAddr::V4(_) => ip,
    }
}

/// The IPv4 address inside a NAT64 (`64:ff9b::/96`, RFC 6052) or 6to4 (`2002::/16`, RFC 3056) address.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_addresses_are_refused_in_every_spelling() {
        for bad in [
            "127.0.0.1:80",
            "127.8.9.1:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "0.0.0.0:80",
            "[::]:80",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[fe80::1]:80",
            "[64:ff9b::7f00:1]:80",
            "[2002:7f00:1::]:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "10.0.0.1:15012",
            "10.0.0.1:4999",
        ] {
            let address = bad.parse().expect(bad);
            let deny = check(address, &["0.0.0.0:4999".parse().unwrap()]).expect_err(bad);
            assert_eq!(deny.reason, Reason::EgressNotAllowed);
        }
    }

    #[test]
    fn the_rest_of_the_world_is_allowed() {
        for good in ["10.0.0.1:80", "93.184.216.34:443", "[2606:2800:220:1::1]:443", "192.168.1.7:11434"] {
            check(good.parse().unwrap(), &[]).unwrap();
        }
    }
}
