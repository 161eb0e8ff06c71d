//! Connections that are kept for the next question to the same service.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;

/// An unused connection is closed after this; services close theirs after a minute or more.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// Unused HTTP/1.1 connections to one service.
const MOST_TO_ONE: usize = 8;
/// Kept connections in all.
const MOST: usize = 64;

/// Whose connection it is, and what it proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub host: Box<str>,
    pub port: u16,
    pub h2: bool,
    pub secure: Option<Files>,
}

/// The files that TLS goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Files {
    pub roots: Option<PathBuf>,
    pub client: Option<(PathBuf, PathBuf)>,
}

/// All of them; the one that was used last is last.
#[derive(Debug, Default)]
pub(super) struct Kept {
    all: Vec<(Key, Connection, Instant)>,
    /// Somebody closes what is idle.
    pub swept: bool,
}

impl Kept {
    /// One to use; of HTTP/2 a share of it.
    pub fn take(&mut self, key: &Key) -> Option<Connection> {
        let at = self.all.iter().rposition(|(kept, ..)| kept == key)?;
        match &mut self.all[at] {
            (_, Connection::Http2(requests), used) => {
                *used = Instant::now();
                Some(Connection::Http2(requests.clone()))
            }
            _ => Some(self.all.remove(at).1),
        }
    }

    /// A connection that can carry another question.
    pub fn put(&mut self, key: Key, connection: Connection) {
        let most = if key.h2 { 1 } else { MOST_TO_ONE };
        if self.all.iter().filter(|(kept, ..)| *kept == key).count() >= most {
            return;
        }
        if self.all.len() >= MOST {
            self.all.remove(0);
        }
        self.all.push((key, connection, Instant::now()));
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
