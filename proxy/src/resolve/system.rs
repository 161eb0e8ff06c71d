//! Look-ups as the system is set up: /etc/hosts first, then the servers of /etc/resolv.conf or of `--dns-server`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::{Answer, Lookup};

/// How long a server may take; another is tried then (resolv.conf's default is 5 s, too long for a request).
const PATIENCE: Duration = Duration::from_secs(2);

/// The system's resolver, made when the first name is asked for: most sidecars never ask.
#[derive(Debug)]
pub struct SystemLookup {
    server: Option<SocketAddr>,
    made: Mutex<Option<Made>>,
}

/// A resolver and the state of the files that it was made from.
#[derive(Clone)]
struct Made {
    resolver: TokioResolver,
    files: [Option<SystemTime>; 2],
}

impl std::fmt::Debug for Made {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Made").field("files", &self.files).finish_non_exhaustive()
    }
}

impl SystemLookup {
    /// Asks `server`, or those of /etc/resolv.conf.
    pub fn new(server: Option<SocketAddr>) -> Self {
        SystemLookup { server, made: Mutex::new(None) }
    }

    /// The resolver, made again when the system's files have changed.
    fn resolver(&self) -> io::Result<TokioResolver> {
        let files = ["/etc/hosts", "/etc/resolv.conf"]
            .map(|file| std::fs::metadata(file).and_then(|m| m.modified()).ok());
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match &*made {
            Some(known) if known.files == files => Ok(known.resolver.clone()),
            _ => {
                let resolver = make(self.server)?;
                *made = Some(Made { resolver: resolver.clone(), files });
                Ok(resolver)
            }
        }
    }
}

fn make(server: Option<SocketAddr>) -> io::Result<TokioResolver> {
    let mut builder = match server {
        None => TokioResolver::builder_tokio().map_err(io::Error::other)?,
        Some(server) => {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            let server = NameServerConfig::new(server.ip(), true, connections.into());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    set_up(builder.options_mut());
    builder.build().map_err(io::Error::other)
}

fn set_up(options: &mut ResolverOpts) {
    options.timeout = PATIENCE;
    options.attempts = 2;
    // The table keeps answers; a second memory would only make them older.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Always;
    // A service that listens on 127.0.0.1 only must not get half of its calls at ::1 (Envoy's V4_PREFERRED).
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
}

impl Lookup for SystemLookup {
    async fn lookup(&self, name: &str) -> Result<Answer, String> {
        // RFC 6761 section 6.3; containers without /etc/hosts know it too.
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(Answer { addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], ttl: Duration::MAX });
        }
        let resolver = self.resolver().map_err(|error| error.to_string())?;
        let found = resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
        let addresses: Vec<IpAddr> = found.iter().collect();
        if addresses.is_empty() {
            return Err("no address".to_owned());
        }
        Ok(Answer { addresses, ttl: found.valid_until().saturating_duration_since(Instant::now()) })
    }
}
