//! Cards that a file declares: for machines whose driver is not asked, and for tests. Read again whenever the file changes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pilotfish_config::model::{Gpu, GpuSlice};
use pilotfish_config::wire::node::{GpuState, SliceState};
use pilotfish_config::{Options, Severity, load_texts};

use crate::log;

/// A longer file declares no cards.
const LONGEST: u64 = 1 << 20;

/// What makes a document of a list of cards.
const HEAD: &str = "apiVersion: pilotfish.dev/v1\nkind: Node\nmetadata: {name: this}\nspec:\n";

/// The file, and what it says.
#[derive(Debug)]
pub(super) struct GpuFile {
    path: PathBuf,
    seen: Option<Seen>,
    /// Its cards; those of before when it cannot be read now.
    pub(super) gpus: Vec<GpuState>,
    /// Why it cannot be read.
    pub(super) trouble: Option<String>,
}

/// By what a change is noticed: an editor writes another file, `echo` the same one.
type Seen = (u64, u64, i64, i64);

impl GpuFile {
    /// Reads it.
    ///
    /// # Errors
    /// It is not there, or no list of cards: at the start that is a mistake of whoever started it.
    pub(super) fn open(path: &Path) -> Result<GpuFile, String> {
        let mut file = GpuFile { path: path.to_owned(), seen: None, gpus: Vec::new(), trouble: None };
        file.look();
        match file.trouble.take() {
            Some(why) => Err(why),
            None => Ok(file),
        }
    }

    /// Reads it again when it changed.
    pub(super) fn look(&mut self) {
        let meta = fs::metadata(&self.path);
        let seen = meta.as_ref().ok().map(|meta| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()));
        if seen.is_some() && seen == self.seen {
            return;
        }
        self.seen = seen;
        match meta.and_then(|_| self.read()) {
            Ok(gpus) => {
                for gpu in gpus.iter().filter(|gpu| gpu.failed.is_some() && !self.gpus.contains(gpu)) {
                    log::warn!(
                        "a card has failed",
                        gpu = gpu.id,
                        why = gpu.failed.as_deref().unwrap_or_default()
                    );
                }
                self.gpus = gpus;
                self.trouble = None;
            }
            Err(error) => self.trouble = Some(format!("--gpu-file {}: {error}", self.path.display())),
        }
    }

    fn read(&self) -> io::Result<Vec<GpuState>> {
        if fs::metadata(&self.path)?.len() > LONGEST {
            return Err(io::Error::other("it is longer than 1 MiB"));
        }
        cards(&fs::read_to_string(&self.path)?).map_err(io::Error::other)
    }
}

/// Reads the cards of a Node document, or of a text that is the `spec` of one.
fn cards(text: &str) -> Result<Vec<GpuState>, String> {
    // As a document of its own when it is none: each line goes below `spec`, in YAML and in JSON alike.
    let whole =
        match text.lines().any(|line| line.trim_start().trim_start_matches(['{', '"']).starts_with("kind")) {
            true => text.to_owned(),
            false => {
                let below: String = text.lines().map(|line| format!("  {line}\n")).collect();
                format!("{HEAD}{below}")
            }
        };
    let loaded = load_texts(&[("gpus", &whole)], &Options::default());
    let Some(model) = loaded.model else {
        let error = loaded.report.diagnostics.iter().find(|said| said.severity == Severity::Error);
        return Err(error.map(|error| format!("{}: {}", error.path, error.message)).unwrap_or_default());
    };
    let [node] = model.nodes.as_slice() else {
        return Err("it is one list `gpus:`, or one Node".into());
    };
    Ok(node.gpus.iter().map(card).collect())
}

fn card(gpu: &Gpu) -> GpuState {
    let slice = |slice: &GpuSlice| SliceState {
        id: slice.id.clone(),
        profile: slice.profile.clone(),
        memory: slice.memory,
    };
    GpuState {
        id: gpu.id.clone(),
        model: gpu.model.clone(),
        memory: gpu.memory,
        failed: gpu.health.clone().err(),
        driver: gpu.driver.clone(),
        slices: gpu.slices.iter().map(slice).collect(),
        used: 0,
        busy_percent: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_read_from_yaml_and_json_alone_and_in_a_document() {
        let yaml = "gpus:\n- {id: a, model: NVIDIA L4, memory: 24Gi}\n- id: b\n  model: NVIDIA L4\n  memory: 24Gi\n  health: the fan is broken\n";
        let json = r#"{"gpus": [{"id": "a", "model": "NVIDIA L4", "memory": "24Gi"},
            {"id": "b", "model": "NVIDIA L4", "memory": "24Gi", "health": "the fan is broken"}]}"#;
        let document = format!("{HEAD}  region: r\n  gpus: [{{id: a, model: NVIDIA L4, memory: 24Gi}}]\n");
        let read = cards(yaml).unwrap();
        assert_eq!(read, cards(json).unwrap());
        assert_eq!((read[0].memory, read[0].failed.as_deref()), (24 << 30, None));
        assert_eq!(read[1].failed.as_deref(), Some("the fan is broken"));
        assert_eq!(cards(&document).unwrap(), &read[..1]);
        let sliced =
            "gpus: [{id: a, model: A100, memory: 80Gi, slices: [{id: m, profile: 1g.10gb, count: 2}]}]";
        assert_eq!(cards(sliced).unwrap()[0].slices.len(), 2);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_and_its_cards_of_before_stay() {
        let error = cards("gpus: [{id: a, modell: L4, memory: 24Gi}]").unwrap_err();
        assert!(error.contains("model"), "{error}");
        assert!(cards("gpus: [{id: a, model: L4, memory: much}]").unwrap_err().contains("much"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpus.yaml");
        assert!(GpuFile::open(&path).unwrap_err().contains("gpus.yaml"));
        fs::write(&path, "gpus: [{id: a, model: L4, memory: 24Gi}]").unwrap();
        let mut file = GpuFile::open(&path).unwrap();
        fs::write(&path, "gpus: [{id: a, model: L4, memory: 24Gi, health: broken}, {id: b, ").unwrap();
        file.look();
        assert!(file.trouble.is_some() && file.gpus.len() == 1, "{file:?}");
        fs::write(&path, "gpus: [{id: a, model: L4, memory: 24Gi, health: broken}]").unwrap();
        file.look();
        assert_eq!((file.trouble.as_deref(), file.gpus[0].failed.as_deref()), (None, Some("broken")));
    }
}
