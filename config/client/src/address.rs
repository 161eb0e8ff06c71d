//! Where a control plane is, as people write it.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The port of a control plane that names none.
pub const PORT: u16 = 15012;

/// Where a control plane is: `https://HOST:15012`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

impl FromStr for Address {
    type Err = String;

    /// `https://host:port`, or without scheme or port.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let rest = match text.split_once("://") {
            Some(("https", rest)) => rest,
            Some(_) => return Err("a control plane speaks TLS: it has to begin with https://".into()),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let read = || match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                host.parse::<Ipv6Addr>().ok()?;
                Some((host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) }))
            }
            None => {
                let (host, port) =
                    rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
                let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
                (!host.is_empty() && host.bytes().all(good)).then_some((host, port))
            }
        };
        let (host, port) = read().ok_or("write https://HOST:15012")?;
        let port = match port {
            None => PORT,
            Some(port) => {
                let number = port.parse().ok().filter(|number| *number != 0 && !port.starts_with('+'));
                number.ok_or("write https://HOST:15012, with a port of 1 to 65535")?
            }
        };
        Ok(Address { host: host.to_owned(), port })
    }
}

impl Address {
    /// `host:port`, `[::1]:port`.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "https://{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let shown = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(shown("https://c.test:1"), Ok("https://c.test:1".into()));
        assert_eq!(shown(" https://mesh.example/ "), Ok("https://mesh.example:15012".into()));
        assert_eq!(shown("10.0.0.1"), Ok("https://10.0.0.1:15012".into()));
        assert_eq!(shown("10.0.0.1:9"), Ok("https://10.0.0.1:9".into()));
        assert_eq!(shown("https://[::1]:7/"), Ok("https://[::1]:7".into()));
        assert_eq!(shown("https://[::1]"), Ok("https://[::1]:15012".into()));
        let bad = "|http://x:1|https://|https://:1|https://x:0|https://x:+1|https://x:|https://x:port|https://x:99999|\
            https://x/y|https://a@b|a b|::1|x:1:2|[x]|[::1]7|[::1";
        for bad in bad.split('|') {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }
}
