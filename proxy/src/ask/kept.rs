//! Connections that are kept for the next question to the same service.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pilotfish_identity::SpiffeId;
use tokio::time::Instant;

use super::connection::Connection;

/// An unused connection is closed after this; services close theirs after a minute or more.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// Unused HTTP/1.1 connections to one service.
const MOST_TO_ONE: usize = 8;
/// Kept connections in all.
const MOST: usize = 64;

/// A connection to another sidecar is not used for longer: by then its certificate may have ended.
const OLD: Duration = Duration::from_secs(300);

/// Whose connection it is, and what it proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub to: To,
    pub h2: bool,
    pub proof: Proof,
}

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum To {
    /// To a host and port, by DNS.
    Name(Box<str>, u16),
    Address(SocketAddr),
    Unix(Box<Path>),
}

/// What the other end proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    Nothing,
    /// That it has this name, by these files.
    Files(Files, Box<str>),
    /// That it has this name, by the settings of a DestinationRule with this digest.
    Settings([u8; 32], Box<str>),
    /// That it is the sidecar with this SPIFFE ID, or with one of those besides.
    Mesh(Box<str>, Box<[Arc<str>]>),
}

/// The files that TLS goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Files {
    pub roots: Option<PathBuf>,
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A connection, and under what trust it was made.
#[derive(Debug)]
pub(super) struct Open {
    pub connection: Connection,
    /// Who was called, when that is another sidecar.
    pub called: Option<SpiffeId>,
    made: Instant,
    /// The version of this sidecar's identity and trust.
    trust: u64,
}

impl Open {
    /// A new one.
    pub fn new(connection: Connection, called: Option<SpiffeId>, trust: u64) -> Open {
        Open { connection, called, made: Instant::now(), trust }
    }

    /// Whether a question may go on it now. Trust in other sidecars may end at any time, that in others only where files change.
    fn is_good(&self, proof: &Proof, trust: u64) -> bool {
        !matches!(proof, Proof::Mesh(..)) || (self.trust == trust && self.made.elapsed() < OLD)
    }
}

/// All of them; the one that was used last is last.
#[derive(Debug, Default)]
pub(super) struct Kept {
    all: Vec<(Key, Open, Instant)>,
    /// Somebody closes what is idle.
    pub swept: bool,
}

impl Kept {
    /// One to use under the present trust; of HTTP/2 a share of it.
    pub fn take(&mut self, key: &Key, trust: u64) -> Option<Open> {
        self.all.retain(|(kept, open, _)| kept != key || open.is_good(&kept.proof, trust));
        let at = self.all.iter().rposition(|(kept, ..)| kept == key)?;
        match &mut self.all[at] {
            (_, Open { connection: Connection::Http2(requests), called, made, trust }, used) => {
                *used = Instant::now();
                let connection = Connection::Http2(requests.clone());
                Some(Open { connection, called: called.clone(), made: *made, trust: *trust })
            }
            _ => Some(self.all.remove(at).1),
        }
    }

    /// A connection that can carry another question.
    pub fn put(&mut self, key: Key, open: Open) {
        let most = if key.h2 { 1 } else { MOST_TO_ONE };
        if self.all.iter().filter(|(kept, ..)| *kept == key).count() >= most {
            return;
        }
        if self.all.len() >= MOST {
            self.all.remove(0);
        }
        self.all.push((key, open, Instant::now()));
    }

    /// A shared connection turned out to be of no use.
    pub fn forget(&mut self, key: &Key) {
        self.all.retain(|(kept, ..)| kept != key);
    }

    /// Closes what is idle; whether anything is left.
    pub fn sweep(&mut self) -> bool {
        self.all.retain(|(.., used)| used.elapsed() < IDLE);
        if self.all.is_empty() {
            self.all = Vec::new();
        }
        !self.all.is_empty()
    }
}
