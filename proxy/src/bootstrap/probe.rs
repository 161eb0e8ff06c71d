//! How the agent's health is found out, as a flag says it.

use std::str::FromStr;

/// A kind of probe, with what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeKind {
    /// A GET of this path at the agent's address; 200 to 399 is good.
    Http(String),
    /// `grpc.health.v1.Health/Check` of this service at the agent's address; the empty name means the whole server.
    Grpc(String),
    /// The agent's address accepts a connection.
    Tcp,
    /// This command, run by `sh -c`, ends with 0.
    Exec(String),
}

impl FromStr for ProbeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        let clean = |rest: &str| !rest.bytes().any(|byte| byte.is_ascii_control() || byte == b' ');
        match (kind, rest) {
            ("http", Some(path)) if path.starts_with('/') && clean(path) => {
                Ok(ProbeKind::Http(path.to_owned()))
            }
            ("http", _) => Err("expected http:/PATH".into()),
            ("grpc", service) if clean(service.unwrap_or_default()) => {
                Ok(ProbeKind::Grpc(service.unwrap_or_default().to_owned()))
            }
            ("tcp", None) => Ok(ProbeKind::Tcp),
            ("exec", Some(command)) if !command.trim().is_empty() => Ok(ProbeKind::Exec(command.to_owned())),
            _ => Err("expected http:/PATH, grpc, grpc:SERVICE, tcp or exec:COMMAND".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read() {
        let read = |text: &str| text.parse::<ProbeKind>();
        assert_eq!(read("http:/healthz?x=1"), Ok(ProbeKind::Http("/healthz?x=1".into())));
        assert_eq!(read("grpc"), Ok(ProbeKind::Grpc(String::new())));
        assert_eq!(read("grpc:a.B"), Ok(ProbeKind::Grpc("a.B".into())));
        assert_eq!(read("tcp"), Ok(ProbeKind::Tcp));
        assert_eq!(read("exec:test -f /x"), Ok(ProbeKind::Exec("test -f /x".into())));
        for bad in ["", "http", "http:x", "http:/a b", "http:/a\r\nx", "tcp:1", "exec:", "udp"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
