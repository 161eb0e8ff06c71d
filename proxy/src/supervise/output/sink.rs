//! Where the agent's lines go: the sidecar's own output, or a file of bounded size.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use super::Stream;
use crate::bootstrap::AgentLog;
use crate::telemetry::log;

/// The file ...
const NAME: &str = "agent.log";
/// ... and the one before.
const BEFORE: &str = "agent.log.1";
/// How long it may get, in bytes.
const LONGEST: u64 = 8 << 20;

/// Lines of one stream.
#[derive(Debug)]
pub struct Batch {
    /// Of which.
    pub stream: Stream,
    /// How many.
    pub lines: u64,
    bytes: Vec<u8>,
}

impl Batch {
    /// None yet.
    pub fn new(stream: Stream) -> Batch {
        Batch { stream, lines: 0, bytes: Vec::new() }
    }

    /// One more.
    pub fn push(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.bytes.push(b'\n');
        self.lines += 1;
    }
}

/// Where they go.
#[derive(Debug)]
pub enum Sink {
    /// The sidecar's stdout and stderr.
    Inherit,
    /// The file.
    File(Rotated),
}

impl Sink {
    /// As the flag says; `None`: nowhere.
    pub fn of(to: AgentLog, dir: &Path) -> Option<Sink> {
        match to {
            AgentLog::Inherit => Some(Sink::Inherit),
            AgentLog::File => Some(Sink::File(Rotated::new(dir, LONGEST))),
            AgentLog::Off => None,
        }
    }

    /// Writes until nothing comes any more.
    pub fn run(mut self, batches: &Receiver<Batch>) {
        while let Ok(batch) = batches.recv() {
            match &mut self {
                // A reader that went away is no reason to stop.
                Sink::Inherit if batch.stream == Stream::Out => {
                    let mut out = io::stdout().lock();
                    let _ = out.write_all(&batch.bytes).and_then(|()| out.flush());
                }
                Sink::Inherit => drop(io::stderr().lock().write_all(&batch.bytes)),
                Sink::File(file) => file.write(&batch.bytes),
            }
        }
    }
}

/// A file that is begun anew when it is full, with one predecessor.
#[derive(Debug)]
pub struct Rotated {
    path: PathBuf,
    before: PathBuf,
    longest: u64,
    open: Option<(File, u64)>,
    /// It was said that it cannot be written.
    said: bool,
}

impl Rotated {
    fn new(dir: &Path, longest: u64) -> Rotated {
        Rotated { path: dir.join(NAME), before: dir.join(BEFORE), longest, open: None, said: false }
    }

    /// What cannot be written is lost; the first time that is said.
    fn write(&mut self, bytes: &[u8]) {
        match self.try_write(bytes) {
            Ok(()) => self.said = false,
            Err(error) if !self.said => {
                self.said = true;
                log::error!("the agent's output is lost", file = self.path.display(), error = error);
            }
            Err(_) => {}
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(_, length)| length + bytes.len() as u64 > self.longest) {
            self.open = None;
            std::fs::rename(&self.path, &self.before)?;
        }
        if self.open.is_none() {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
            let length = file.metadata()?.len();
            self.open = Some((file, length));
        }
        if let Some((file, length)) = &mut self.open {
            file.write_all(bytes)?;
            *length += bytes.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = Rotated::new(dir.path(), 10);
        for line in ["first\n", "second\n", "third\n"] {
            file.write(line.as_bytes());
        }
        let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!((read(NAME).as_str(), read(BEFORE).as_str()), ("third\n", "second\n"));
        // Of an earlier start.
        let mut file = Rotated::new(dir.path(), 10);
        file.write(b"x\n");
        file.write(b"fourth\n");
        assert_eq!((read(NAME).as_str(), read(BEFORE).as_str()), ("fourth\n", "third\nx\n"));
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let mut file = Rotated::new(Path::new("/nowhere"), 10);
        file.write(b"x\n");
        assert!(file.said);
        let mut full = Rotated { path: "/dev/full".into(), ..Rotated::new(Path::new("/nowhere"), 10) };
        full.write(b"x\n");
        assert!(full.said);
    }
}
