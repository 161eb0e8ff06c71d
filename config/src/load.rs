//! Files and folders to a model: read, compose, check, validate; every error of every file in one report.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnose::Diagnose;
use crate::document::{self, Document};
use crate::model::{Meta, ResourceKey};
use crate::validate::validate;
use crate::yaml::{Limits, Tree, compose_at};
use crate::{Loaded, Options, Report, canonical};

/// A file's name, the line that its text starts in, and the text.
struct Text<'t> {
    name: Arc<str>,
    line: u32,
    text: Cow<'t, str>,
}

impl<'t> Text<'t> {
    fn new(name: impl Into<Arc<str>>, text: impl Into<Cow<'t, str>>) -> Text<'t> {
        Text { name: name.into(), line: 1, text: text.into() }
    }

    /// A document whose author wrote it at `source`, `routes.yaml:12`.
    fn admitted(source: &str, text: &'t str) -> Text<'t> {
        let place = source.rsplit_once(':').and_then(|(file, line)| Some((file, line.parse().ok()?)));
        let (file, line) = place.unwrap_or((source, 1));
        Text { name: file.into(), line, text: text.into() }
    }
}

/// A document that is valid together with those that it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// What makes it unique.
    pub key: ResourceKey,
    /// Its key, labels, annotations and place.
    pub meta: Meta,
    /// Where its author wrote it, `routes.yaml:12`.
    pub source: String,
    /// The document as JSON on one line: keys sorted, the namespace filled in, without what Kubernetes adds. The same
    /// content gives the same text; [`load_documents`] reads it.
    pub json: String,
}

/// Loads files and folders (their `.yaml` and `.yml` files, by name; not recursive, as kubectl does).
pub fn load(paths: &[PathBuf], options: &Options) -> Loaded {
    let mut diagnose = Diagnose::default();
    let texts = texts(paths, &mut diagnose);
    load_all(&texts, options, diagnose, false).0
}

/// The files that [`load`] would read, with their texts, and what is wrong with those that cannot be read.
pub fn read_texts(paths: &[PathBuf]) -> (Vec<(Arc<str>, String)>, Report) {
    let mut diagnose = Diagnose::default();
    let texts = texts(paths, &mut diagnose);
    let names: Vec<Arc<str>> = texts.iter().map(|text| text.name.clone()).collect();
    let texts = texts.into_iter().map(|text| (text.name, text.text.into_owned())).collect();
    (texts, diagnose.finish(&names))
}

fn texts(paths: &[PathBuf], diagnose: &mut Diagnose) -> Vec<Text<'static>> {
    let mut texts = Vec::new();
    for file in files(paths, diagnose) {
        let name: Arc<str> = file.display().to_string().into();
        match read(&file, diagnose, &name) {
            Some(bytes) => texts.extend(utf8(name, bytes, diagnose)),
            None => texts.push(Text::new(name, "")),
        }
    }
    texts
}

/// Loads documents from memory: pairs of a name for messages, and text.
pub fn load_texts(texts: &[(&str, &str)], options: &Options) -> Loaded {
    let texts: Vec<Text<'_>> = texts.iter().map(|(name, text)| Text::new(*name, *text)).collect();
    load_all(&texts, options, Diagnose::default(), false).0
}

/// Loads documents from memory and gives each (the items of a List apart) in the form in which it is stored and sent,
/// in the order of writing; none when there is any error. What is not for Pilotfish is left out.
pub fn admit(texts: &[(&str, &str)], options: &Options) -> (Loaded, Vec<Admitted>) {
    let texts: Vec<Text<'_>> = texts.iter().map(|(name, text)| Text::new(*name, *text)).collect();
    load_all(&texts, options, Diagnose::default(), true)
}

/// As [`admit`], among documents that were admitted before: `others` is told the keys of what is in `texts`, and gives
/// those that stay beside them, as [`load_documents`] takes them. Only what is in `texts` is given back.
pub fn admit_among<'d>(
    texts: &[(&str, &str)],
    options: &Options,
    others: impl FnOnce(&[ResourceKey]) -> Vec<(&'d str, &'d str)>,
) -> (Loaded, Vec<Admitted>) {
    let texts: Vec<Text<'_>> = texts.iter().map(|(name, text)| Text::new(*name, *text)).collect();
    let others = |keys: &[ResourceKey]| {
        others(keys).into_iter().map(|(source, json)| Text::admitted(source, json)).collect()
    };
    load_among(&texts, others, options, Diagnose::default(), true)
}

/// Loads admitted documents: pairs of [`Admitted::source`] and [`Admitted::json`].
pub fn load_documents<'d>(
    documents: impl IntoIterator<Item = (&'d str, &'d str)>,
    options: &Options,
) -> Loaded {
    let texts: Vec<Text<'_>> =
        documents.into_iter().map(|(source, json)| Text::admitted(source, json)).collect();
    load_all(&texts, options, Diagnose::default(), false).0
}

/// Loads one document stream that may not even be text.
pub fn load_bytes(name: &str, bytes: Vec<u8>, options: &Options) -> Loaded {
    let mut diagnose = Diagnose::default();
    let texts: Vec<Text<'_>> = utf8(name.into(), bytes, &mut diagnose).into_iter().collect();
    load_all(&texts, options, diagnose, false).0
}

fn load_all(
    texts: &[Text<'_>],
    options: &Options,
    diagnose: Diagnose,
    admit: bool,
) -> (Loaded, Vec<Admitted>) {
    load_among(texts, |_| Vec::new(), options, diagnose, admit)
}

fn load_among<'d>(
    texts: &[Text<'_>],
    others: impl FnOnce(&[ResourceKey]) -> Vec<Text<'d>>,
    options: &Options,
    mut diagnose: Diagnose,
    admit: bool,
) -> (Loaded, Vec<Admitted>) {
    let trees = trees(texts, &mut diagnose);
    let documents = read_documents(&trees, options, &mut diagnose);
    let mut admitted: Vec<Admitted> =
        if admit && diagnose.errors() == 0 { documents.iter().map(admitted).collect() } else { Vec::new() };
    let keys: Vec<ResourceKey> = documents.iter().map(|document| document.meta.key.clone()).collect();
    let others_texts = others(&keys);
    let others_trees = self::trees(&others_texts, &mut diagnose);
    let others = read_documents(&others_trees, options, &mut diagnose);
    let documents: Vec<Document<'_>> = documents.into_iter().chain(others).collect();
    let resources = documents.len();
    let model = validate(documents, options, &mut diagnose);
    let model = (diagnose.errors() == 0).then_some(model);
    if model.is_none() {
        admitted.clear();
    }
    let names: Vec<Arc<str>> = texts.iter().chain(&others_texts).map(|text| text.name.clone()).collect();
    let mut report = diagnose.finish(&names);
    report.files = texts.len();
    report.resources = resources;
    (Loaded { model, report }, admitted)
}

fn trees<'t>(texts: &'t [Text<'_>], diagnose: &mut Diagnose) -> Vec<Tree<'t>> {
    let limits = Limits::default();
    let tree = |text: &'t Text<'_>| {
        let (tree, problems) = compose_at(&text.name, text.line, &text.text, &limits);
        problems.into_iter().for_each(|problem| diagnose.problem(&text.name, problem));
        tree
    };
    texts.iter().map(tree).collect()
}

fn read_documents<'n>(
    trees: &'n [Tree<'n>],
    options: &Options,
    diagnose: &mut Diagnose,
) -> Vec<Document<'n>> {
    let mut documents = Vec::new();
    for node in trees.iter().flat_map(|tree| tree.documents()) {
        document::read(node, &options.default_namespace, diagnose, &mut documents);
    }
    documents
}

fn admitted(document: &Document<'_>) -> Admitted {
    let meta = document.meta.clone();
    let source = format!("{}:{}", meta.source.file, meta.source.line);
    Admitted { key: meta.key.clone(), meta, source, json: canonical::document(document) }
}

/// The files that the paths mean, each once.
fn files(paths: &[PathBuf], diagnose: &mut Diagnose) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        let found = if path.is_dir() { folder(path, diagnose) } else { vec![path.clone()] };
        for file in found {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    files
}

fn folder(path: &Path, diagnose: &mut Diagnose) -> Vec<PathBuf> {
    let name = path.display().to_string();
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            diagnose.file_error(&name, format!("cannot be read: {error}"), None);
            return Vec::new();
        }
    };
    let is_yaml = |file: &PathBuf| file.extension().is_some_and(|ext| ext == "yaml" || ext == "yml");
    let hidden =
        |file: &PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|file| is_yaml(file) && !hidden(file) && file.is_file())
        .collect();
    files.sort();
    if files.is_empty() {
        diagnose.file_warning(&name, "no .yaml or .yml files in this folder".into());
    }
    files
}

/// The bytes of a file, never more than the limit and one.
fn read(file: &Path, diagnose: &mut Diagnose, name: &Arc<str>) -> Option<Vec<u8>> {
    let limit = Limits::default().bytes as u64 + 1;
    let mut bytes = Vec::new();
    let result = File::open(file).and_then(|file| {
        let size = file.metadata().map_or(0, |meta| meta.len()).min(limit);
        bytes.reserve(usize::try_from(size).unwrap_or_default() + 1);
        file.take(limit).read_to_end(&mut bytes)
    });
    match result {
        Ok(_) => Some(bytes),
        Err(error) => {
            diagnose.file_error(name, format!("cannot be read: {error}"), None);
            None
        }
    }
}

fn utf8(name: Arc<str>, bytes: Vec<u8>, diagnose: &mut Diagnose) -> Option<Text<'static>> {
    // Cutting a file at the limit may cut a character; such a file is refused for its length by `compose`.
    let limit = Limits::default().bytes;
    match String::from_utf8(bytes) {
        Ok(text) => Some(Text::new(name, text)),
        Err(error) if error.as_bytes().len() > limit && error.utf8_error().valid_up_to() + 4 > limit => {
            Some(Text::new(name, String::from_utf8_lossy(error.as_bytes()).into_owned()))
        }
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
            let start = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let column = String::from_utf8_lossy(&good[start..]).chars().count() + 1;
            let bad = error.as_bytes()[good.len()];
            let at = crate::yaml::At {
                line: u32::try_from(line).unwrap_or(u32::MAX),
                column: u32::try_from(column).unwrap_or(u32::MAX),
            };
            let message = format!("not UTF-8: the byte 0x{bad:02x}");
            let hint = Some("save the file as UTF-8".to_owned());
            diagnose.problem(&name, crate::yaml::Problem { at, message, hint });
            Some(Text::new(name, ""))
        }
    }
}
