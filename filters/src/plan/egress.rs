//! What a configuration says about calls to hosts that it has no rule and no service for.

use std::net::{IpAddr, SocketAddr};

use pilotfish_config::model::OutboundMode;

/// May an agent call what the mesh does not know?
#[derive(Debug, Default)]
pub struct Egress {
    pub(crate) mode: OutboundMode,
    /// Addresses that ServiceEntries name, with the ports.
    pub(crate) named: Vec<NamedAddress>,
}

/// Addresses that a ServiceEntry names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedAddress {
    pub(crate) network: IpAddr,
    /// How many leading bits count.
    pub(crate) bits: u8,
    /// The ports; empty: every port.
    pub(crate) ports: Box<[u16]>,
}

impl Egress {
    /// Whether calls to unknown hosts pass (`ALLOW_ANY`) or are refused (`REGISTRY_ONLY`).
    pub fn mode(&self) -> OutboundMode {
        self.mode
    }

    /// Whether a ServiceEntry names this address and port, which then is allowed whatever it is: by a host that is
    /// an address (or `localhost`), or by `addresses`.
    pub fn names(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.named.iter().any(|named| named.covers(ip, address.port()))
    }
}

impl NamedAddress {
    /// Reads an address or a CIDR block.
    pub(crate) fn parse(text: &str, ports: &[u16]) -> Option<NamedAddress> {
        let (network, bits) = match text.split_once('/') {
            Some((network, bits)) => (network, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let network = network.parse::<IpAddr>().ok()?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then(|| NamedAddress { network, bits, ports: ports.into() })
    }

    fn covers(&self, ip: IpAddr, port: u16) -> bool {
        let same = match (self.network.to_canonical(), ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        };
        same && (self.ports.is_empty() || self.ports.contains(&port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_addresses() {
        let egress = Egress {
            mode: OutboundMode::AllowAny,
            named: ["127.0.0.1", "10.1.0.0/16", "::1"]
                .iter()
                .filter_map(|text| NamedAddress::parse(text, &[80]))
                .collect(),
        };
        for (address, named) in [
            ("127.0.0.1:80", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("127.0.0.1:81", false),
            ("127.0.0.2:80", false),
            ("10.1.255.1:80", true),
            ("10.2.0.1:80", false),
            ("[::1]:80", true),
            ("[::2]:80", false),
        ] {
            assert_eq!(egress.names(address.parse().unwrap()), named, "{address}");
        }
        assert_eq!(NamedAddress::parse("10.0.0.0/33", &[]), None);
        assert_eq!(NamedAddress::parse("x", &[]), None);
    }

    #[test]
    fn without_ports_every_port_is_named() {
        let any = NamedAddress::parse("0.0.0.0/0", &[]).unwrap();
        assert!(any.covers([1, 2, 3, 4].into(), 5));
    }
}
