//! A token that a file holds: for those who may do one thing, and are no administrators.

use std::path::Path;

use super::Failure;
use super::administrators::hash;

/// A token that is easier to guess is refused, bytes.
const SHORTEST: usize = 16;

/// The token, as a hash: what is compared tells nothing by how long it takes.
#[derive(Debug)]
pub(super) struct FileToken(String);

impl FileToken {
    /// Reads a file whose content, but for blanks around it, is the token.
    ///
    /// # Errors
    /// It cannot be read, or is too short.
    pub(super) fn read(path: &Path, flag: &str) -> Result<FileToken, Failure> {
        let failed =
            |why: String| Failure(format!("cannot use the token in {}: {why} ({flag})", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let token = text.trim();
        if token.len() < SHORTEST || token.contains(char::is_whitespace) {
            return Err(failed(format!(
                "expected one word of at least {SHORTEST} characters, such as `openssl rand -hex 32` prints"
            )));
        }
        Ok(FileToken(hash(token)))
    }

    /// Whether this is it.
    pub(super) fn is(&self, token: &str) -> bool {
        hash(token) == self.0
    }
}
