//! The address of the client behind the proxies in front of this sidecar.
//!
//! Whoever connects may write anything into `x-forwarded-for`, and so may every agent whose sidecar passes it on. So nothing of it is
//! believed but what that many known proxies added at its end (`--trusted-hops`).

use std::net::{IpAddr, SocketAddr};

use crate::http::RequestHead;

/// The address that the outermost of `hops` trusted proxies saw; `None`: the peer is the client.
pub fn address(head: &RequestHead, hops: u8) -> Option<IpAddr> {
    if hops == 0 {
        return None;
    }
    let elements = || {
        head.headers
            .get_all("x-forwarded-for")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
    };
    let outermost = elements().count().checked_sub(usize::from(hops))?;
    parse(elements().nth(outermost)?)
}

/// An address, perhaps with its port or in brackets.
fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_trusted_proxies_added_counts() {
        let head = |values: &[&str]| {
            let mut head = RequestHead::new(http::Method::GET, "a", "/");
            for value in values {
                head.headers.append("x-forwarded-for", value.as_bytes());
            }
            head
        };
        let of = |values: &[&str], hops| address(&head(values), hops).map(|ip| ip.to_string());
        assert_eq!(of(&["1.1.1.1"], 0), None);
        assert_eq!(of(&["6.6.6.6, 1.1.1.1"], 1).as_deref(), Some("1.1.1.1"));
        assert_eq!(of(&["6.6.6.6, 1.1.1.1, 2.2.2.2"], 2).as_deref(), Some("1.1.1.1"));
        assert_eq!(of(&["6.6.6.6", "1.1.1.1:80", "[2001:db8::1]"], 2).as_deref(), Some("1.1.1.1"));
        assert_eq!(of(&["6.6.6.6", "[2001:db8::1]:80"], 1).as_deref(), Some("2001:db8::1"));
        assert_eq!(of(&["1.1.1.1"], 2), None, "fewer than there should be: the peer is asked");
        assert_eq!(of(&["6.6.6.6, nonsense"], 1), None);
        assert_eq!(of(&[], 1), None);
    }
}
