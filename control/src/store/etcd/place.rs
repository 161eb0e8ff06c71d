//! Where etcd is, and how it is reached: TLS everywhere but on this machine.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use etcd_client::{Certificate, Error, Identity, TlsOptions};

use super::may_have_happened;
use crate::store::StoreError;
use crate::store::open::Tls;

/// The members of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    members: Vec<String>,
    encrypted: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "etcd at {}", self.members.join(","))
    }
}

fn wrong(why: String) -> StoreError {
    StoreError::Unavailable { why, unsure: false }
}

impl Place {
    /// Reads `etcd://HOST:PORT[,HOST:PORT...]`; `https://` means the same and TLS. With any file for TLS it is TLS too.
    ///
    /// # Errors
    /// It is no such URL, or asks for plain text to another machine.
    pub fn parse(url: &str, tls: &Tls) -> Result<Place, StoreError> {
        let expected = || wrong(format!("--store {url}: expected etcd://HOST:PORT[,HOST:PORT...]"));
        let (scheme, rest) = url.split_once("://").ok_or_else(expected)?;
        let encrypted = match scheme {
            "etcd" => tls.ca.is_some() || tls.cert.is_some(),
            "https" => true,
            _ => return Err(expected()),
        };
        if rest.contains('@') {
            return Err(wrong("--store: users and passwords are not supported; use --store-cert".into()));
        }
        let members: Vec<String> = rest.trim_end_matches('/').split(',').map(str::to_owned).collect();
        for member in &members {
            let (host, port) = member.rsplit_once(':').ok_or_else(expected)?;
            if host.is_empty() || member.contains('/') || port.parse::<u16>().is_err() {
                return Err(expected());
            }
            if !encrypted && !is_this_machine(host) {
                return Err(wrong(format!(
                    "--store {url}: {member} is another machine, and without TLS everybody between could read and \
                     change what the mesh trusts; give --store-ca (and --store-cert, --store-key)"
                )));
            }
        }
        Ok(Place { members, encrypted })
    }

    /// As the client wants them.
    pub(super) fn endpoints(&self) -> Vec<String> {
        let scheme = if self.encrypted { "https" } else { "http" };
        self.members.iter().map(|member| format!("{scheme}://{member}")).collect()
    }

    /// The files for TLS, read.
    pub(super) fn tls(&self, files: &Tls) -> Result<Option<TlsOptions>, StoreError> {
        if !self.encrypted {
            return Ok(None);
        }
        let Some(ca) = &files.ca else {
            return Err(wrong("--store with TLS needs --store-ca: the certificates to trust".into()));
        };
        let mut options = TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca)?));
        if let (Some(cert), Some(key)) = (&files.cert, &files.key) {
            options = options.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        Ok(Some(options))
    }

    /// What an error of the client means to people.
    pub(super) fn failed(&self, error: &Error, writes: bool) -> StoreError {
        let mut why = match error {
            Error::GRpcStatus(status) => status.message().to_owned(),
            other => other.to_string(),
        };
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            why = format!("{why}: {inner}");
            source = inner.source();
        }
        StoreError::Unavailable { why: format!("{self}: {why}"), unsure: writes && may_have_happened(error) }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    std::fs::read(path).map_err(|error| wrong(format!("{} cannot be read: {error}", path.display())))
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_this_machine() {
        let (none, ca) = (Tls::default(), Tls { ca: Some("ca.pem".into()), ..Tls::default() });
        let place = Place::parse("etcd://127.0.0.1:2379,[::1]:2379,localhost:1", &none).unwrap();
        assert_eq!(place.endpoints(), ["http://127.0.0.1:2379", "http://[::1]:2379", "http://localhost:1"]);
        let refused = Place::parse("etcd://127.0.0.1:2379,10.0.0.1:2379", &none).unwrap_err();
        assert!(refused.to_string().contains("10.0.0.1:2379 is another machine"), "{refused}");
        assert!(Place::parse("etcd://localhost.example:2379", &none).is_err());
        let place = Place::parse("etcd://10.0.0.1:2379", &ca).unwrap();
        assert_eq!(place.endpoints(), ["https://10.0.0.1:2379"]);
        assert!(Place::parse("https://db.example:2379/", &none).unwrap().tls(&none).is_err());
        for bad in [
            "redis://h:1",
            "etcd://",
            "etcd://h",
            "etcd://h:x",
            "etcd://h:1,",
            "h:1",
            "etcd://u:p@localhost:1",
        ] {
            assert!(Place::parse(bad, &ca).is_err(), "{bad}");
        }
    }
}
