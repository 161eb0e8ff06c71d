//! The file that an editor opens.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::Command;

use pilotfish_config::wire::Key;

use crate::cli::failed::Failed;

/// Marks the comments that are ours, so that they go before the text is sent.
const MARK: &str = "#| ";

/// A text in a file that only this user reads (documents may hold tokens of third parties).
#[derive(Debug)]
pub(super) struct Draft {
    folder: PathBuf,
    file: PathBuf,
}

impl Draft {
    /// Writes the text to a new file.
    ///
    /// # Errors
    /// The folder for temporary files is not writable.
    pub(super) fn new(key: &Key, text: &str) -> Result<Draft, Failed> {
        let folder = std::env::temp_dir().join(format!("pilotfish-edit-{:016x}", fastrand::u64(..)));
        let cannot = |error| Failed::refused(format!("cannot write to {}: {error}", folder.display()));
        DirBuilder::new().mode(0o700).create(&folder).map_err(cannot)?;
        let file = folder.join(format!("{}-{}.yaml", key.kind.to_ascii_lowercase(), key.name));
        let draft = Draft { folder, file };
        draft.write(text)?;
        Ok(draft)
    }

    fn write(&self, text: &str) -> Result<(), Failed> {
        let cannot = |error| Failed::refused(format!("cannot write {}: {error}", self.file.display()));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&self.file).map_err(cannot)?;
        file.write_all(text.as_bytes()).map_err(cannot)
    }

    /// What the user made of it; none when nothing was changed, or everything was deleted: then it is gone.
    ///
    /// # Errors
    /// The editor cannot be started, or failed.
    pub(super) fn edited(&self, stored: &str) -> Result<Option<String>, Failed> {
        let before = self.read()?;
        self.open().map_err(|failed| self.kept(failed))?;
        let after = self.read()?;
        let text: String = after
            .lines()
            .filter(|line| !line.starts_with(MARK.trim_end()))
            .map(|line| format!("{line}\n"))
            .collect();
        if after == before || text.trim().is_empty() || text.trim_end() == stored.trim_end() {
            self.remove();
            return Ok(None);
        }
        Ok(Some(text))
    }

    /// Writes why the text was not taken above it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn explain(&self, why: &str, text: &str) -> Result<(), Failed> {
        let comments: String = why.lines().map(|line| format!("{MARK}{line}\n")).collect();
        self.write(&format!(
            "{comments}{MARK}Save to try again; leave without a change to give it up.\n{text}"
        ))
    }

    fn read(&self) -> Result<String, Failed> {
        fs::read_to_string(&self.file)
            .map_err(|error| Failed::refused(format!("cannot read {}: {error}", self.file.display())))
    }

    /// The editor may be a command with flags, as `code --wait`.
    fn open(&self) -> Result<(), Failed> {
        let set = |name: &str| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
        let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".into());
        let run =
            Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(&self.file).status();
        match run {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failed::refused(format!("the editor `{editor}` failed ({status})"))),
            Err(error) => Err(Failed::refused(format!("cannot run sh: {error}"))),
        }
    }

    /// The failure, with where the text is.
    pub(super) fn kept(&self, failed: Failed) -> Failed {
        let message = format!("{}\nyour text is in {}", failed.message, self.file.display());
        Failed { message, ..failed }
    }

    /// The text is not needed any more.
    pub(super) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
