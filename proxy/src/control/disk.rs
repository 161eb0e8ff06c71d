//! The folder of what outlives the process: this sidecar's identity, and the last good configuration. Only this user
//! can read it (mode 0700, files 0600), and a file is replaced as a whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use pilotfish_client::Stored;
use pilotfish_config::wire::Update;
use zeroize::Zeroizing;

use super::set::Set;

/// The last good configuration.
const STATE: &str = "state.json";
/// Key, certificate and trust.
const IDENTITY: &str = "identity.json";
/// The longest file that is read: what a control plane may send in one update, and its frame.
const LONGEST: u64 = 320 << 20;

/// The folder.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Makes the folder, and sees that nobody else can read it.
    ///
    /// # Errors
    /// It cannot be made or written, or it belongs to somebody else.
    pub fn open(path: &Path) -> io::Result<StateDir> {
        let named = |what: &str, error: io::Error| {
            let text =
                format!("{what} the state folder {}: {error}; --state-dir names another", path.display());
            io::Error::new(error.kind(), text)
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| named("cannot make", error))?;
        let meta = std::fs::metadata(path).map_err(|error| named("cannot read", error))?;
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(named("cannot use", io::Error::other("it belongs to another user")));
        }
        if meta.mode() & 0o077 != 0 {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
                .map_err(|error| named("cannot protect", error))?;
        }
        Ok(StateDir(path.to_owned()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The identity of an earlier start; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read, or is no identity.
    pub fn identity(&self) -> io::Result<Option<Stored>> {
        let Some(bytes) = self.read(IDENTITY)? else { return Ok(None) };
        let bytes = Zeroizing::new(bytes);
        serde_json::from_slice(&bytes).map(Some).map_err(|error| self.corrupt(IDENTITY, &error.to_string()))
    }

    /// Keeps an identity.
    ///
    /// # Errors
    /// The disk's; what was there before is still there.
    pub fn keep_identity(&self, identity: &Stored) -> io::Result<()> {
        let bytes = Zeroizing::new(serde_json::to_vec(identity).map_err(io::Error::other)?);
        self.replace(IDENTITY, &[&bytes])
    }

    /// The last good configuration; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written.
    pub fn state(&self) -> io::Result<Option<Set>> {
        let Some(bytes) = self.read(STATE)? else { return Ok(None) };
        let corrupt = |why: &str| self.corrupt(STATE, why);
        let line =
            bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| corrupt("it has no checksum"))?;
        let (checksum, body) = (&bytes[..line], &bytes[line + 1..]);
        if checksum != self::checksum(body).as_bytes() {
            return Err(corrupt("its checksum differs"));
        }
        let update: Update = serde_json::from_slice(body).map_err(|error| corrupt(&error.to_string()))?;
        let mut set = Set::default();
        set.apply(Update { full: true, ..update });
        Ok(Some(set))
    }

    /// Keeps a configuration.
    ///
    /// # Errors
    /// The disk's; what was there before is still there.
    pub fn keep_state(&self, set: &Set) -> io::Result<()> {
        let body = serde_json::to_vec(&set.as_update()).map_err(io::Error::other)?;
        self.replace(STATE, &[checksum(&body).as_bytes(), b"\n", &body])
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.0.join(name);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named(error)),
        };
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes).map_err(named)?;
        Ok(Some(bytes))
    }

    /// Replaces a file that need not outlive the machine's loss of power: nothing waits for the disk.
    ///
    /// # Errors
    /// The disk's; what was there before is still there.
    pub fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.write(name, &[bytes], false)
    }

    /// Writes beside, and renames when all of it is on the disk.
    fn replace(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        self.write(name, parts, true)
    }

    fn write(&self, name: &str, parts: &[&[u8]], durable: bool) -> io::Result<()> {
        let (path, beside) = (self.0.join(name), self.0.join(format!("{name}.new")));
        let write = || {
            let _ = std::fs::remove_file(&beside);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            parts.iter().try_for_each(|part| file.write_all(part))?;
            if durable {
                file.sync_all()?;
            }
            std::fs::rename(&beside, &path)?;
            if durable { File::open(&self.0)?.sync_all() } else { Ok(()) }
        };
        write().map_err(|error: io::Error| {
            let _ = std::fs::remove_file(&beside);
            io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()))
        })
    }

    fn corrupt(&self, name: &str, why: &str) -> io::Error {
        let text = format!("{}: {why}", self.0.join(name).display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

fn checksum(body: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, body).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_state_reads_back_and_is_for_this_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("a/b")).unwrap();
        assert!(state.state().unwrap().is_none() && state.identity().unwrap().is_none());
        let mut set = Set::default();
        set.apply(Update { version: 7, digest: "d".into(), ..Set::default().as_update() });
        state.keep_state(&set).unwrap();
        state.keep_state(&set).unwrap();
        assert_eq!(state.state().unwrap().unwrap().resume(), set.resume());
        let identity = Stored {
            id: "spiffe://d/ns/n/agent/a".into(),
            key: "key".into(),
            chain: "chain".into(),
            bundles: [("d".to_owned(), "root".to_owned())].into(),
        };
        state.keep_identity(&identity).unwrap();
        let read = state.identity().unwrap().unwrap();
        assert_eq!((read.id.as_str(), read.key.as_str()), ("spiffe://d/ns/n/agent/a", "key"));
        assert!(!format!("{read:?}").contains("key"));
        assert_eq!(mode(state.path()), 0o700);
        assert_eq!(mode(&state.path().join(STATE)), 0o600);
        assert_eq!(mode(&state.path().join(IDENTITY)), 0o600);
    }

    #[test]
    fn what_was_not_written_like_this_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut set = Set::default();
        set.apply(Update { version: 7, digest: "digest".into(), ..Set::default().as_update() });
        state.keep_state(&set).unwrap();
        let path = dir.path().join(STATE);
        let good = std::fs::read(&path).unwrap();
        for cut in [0, 1, 64, 65, good.len() - 1] {
            std::fs::write(&path, &good[..cut]).unwrap();
            assert_eq!(state.state().unwrap_err().kind(), io::ErrorKind::InvalidData, "cut at {cut}");
        }
        let flipped = String::from_utf8(good).unwrap().replace("digest\":\"d", "digest\":\"x");
        std::fs::write(&path, flipped).unwrap();
        assert!(state.state().unwrap_err().to_string().contains("checksum"));
        std::fs::write(dir.path().join(IDENTITY), "{").unwrap();
        assert!(state.identity().is_err());
    }

    #[test]
    fn a_folder_that_others_can_read_is_closed_and_a_read_only_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        StateDir::open(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o700);
        let error = StateDir::open(Path::new("/proc/nowhere/x")).unwrap_err().to_string();
        assert!(error.contains("--state-dir"), "{error}");
    }
}
