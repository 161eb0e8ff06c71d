//! The list of a version's documents, in pieces that lie under their digests.
//!
//! Where a piece ends depends on the keys in it and on nothing else, so a change of one document changes one piece: a
//! version of ten thousand documents costs some kilobytes, not megabytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use pilotfish_config::wire::Key;
use serde::{Deserialize, Serialize};

use super::Stored;

/// A piece ends after a key whose hash is a multiple of this, so it has as many documents on average.
const DOCUMENTS: u8 = 64;
/// A piece ends here in any case, bytes.
const LONGEST: usize = 256 << 10;

/// One document of a version: kind, namespace, name, digest, the version that changed it last, source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leaf(
    pub(super) String,
    pub(super) String,
    pub(super) String,
    pub(super) String,
    pub(super) u64,
    pub(super) String,
);

impl Leaf {
    fn of(key: &Key, stored: &Stored) -> Leaf {
        let Key { kind, namespace, name } = key.clone();
        let source = stored.document.source.clone();
        Leaf(kind, namespace, name, stored.digest.clone(), stored.version, source)
    }

    /// Which document it is.
    pub(super) fn key(&self) -> Key {
        Key { kind: self.0.clone(), namespace: self.1.clone(), name: self.2.clone() }
    }

    /// The digest of its JSON.
    pub(super) fn digest(&self) -> &str {
        &self.3
    }
}

/// SHA-256, lower-case hexadecimal.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// The pieces of a list with their digests, in order.
pub(super) fn pieces(documents: &BTreeMap<Key, Arc<Stored>>) -> Vec<(String, Bytes)> {
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    let mut end = |piece: &mut Vec<u8>| {
        let bytes = Bytes::from(std::mem::take(piece));
        pieces.push((digest_of(&bytes), bytes));
    };
    for (key, stored) in documents {
        let mut line = serde_json::to_vec(&Leaf::of(key, stored)).unwrap_or_default();
        line.push(b'\n');
        if piece.len() + line.len() > LONGEST {
            end(&mut piece);
        }
        piece.extend_from_slice(&line);
        let hash = digest::digest(&digest::SHA256, key.to_string().as_bytes());
        if hash.as_ref().first().is_some_and(|first| first % DOCUMENTS == 0) {
            end(&mut piece);
        }
    }
    if !piece.is_empty() {
        end(&mut piece);
    }
    pieces
}

/// The documents of a piece.
pub(super) fn leaves(piece: &[u8]) -> Result<Vec<Leaf>, String> {
    let lines = piece.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|error| error.to_string())).collect()
}
