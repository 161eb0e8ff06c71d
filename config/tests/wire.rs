//! Streams that other versions of the program wrote: one minor version older and newer is read and means the same.
//!
//! `1.0` was written by the first release and stays as it is; `1.9` is the same conversation with fields and messages that
//! this release does not know.

use pilotfish_config::wire::{Frames, LONGEST_TO_CONTROL, LONGEST_TO_SIDECAR, ToControl, ToSidecar, frame};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const TO_CONTROL: [&str; 2] =
    [include_str!("wire/1.0.to-control.jsonl"), include_str!("wire/1.9.to-control.jsonl")];
const TO_SIDECAR: [&str; 2] =
    [include_str!("wire/1.0.to-sidecar.jsonl"), include_str!("wire/1.9.to-sidecar.jsonl")];

/// The recorded lines as frames on one stream, cut into pieces that keep no frame whole.
fn read<T: DeserializeOwned>(recorded: &str, longest: usize) -> Vec<T> {
    let mut stream = Vec::new();
    for line in recorded.lines() {
        stream.extend_from_slice(&u32::try_from(line.len()).unwrap().to_be_bytes());
        stream.extend_from_slice(line.as_bytes());
    }
    let mut frames = Frames::new(longest);
    let mut messages = Vec::new();
    for piece in stream.chunks(7) {
        frames.push(piece);
        while let Some(message) = frames.next().unwrap() {
            messages.push(message);
        }
    }
    frames.end().unwrap();
    messages
}

/// A message as this release writes it.
fn written(message: &impl Serialize) -> Value {
    serde_json::from_slice(&frame(message).unwrap()[4..]).unwrap()
}

fn lines(recorded: &str) -> Vec<Value> {
    recorded.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_first_releases_streams_are_read_and_written_to_the_letter() {
    let messages: Vec<ToControl> = read(TO_CONTROL[0], LONGEST_TO_CONTROL);
    assert_eq!(messages.iter().map(written).collect::<Vec<_>>(), lines(TO_CONTROL[0]));
    let messages: Vec<ToSidecar> = read(TO_SIDECAR[0], LONGEST_TO_SIDECAR);
    assert_eq!(messages.iter().map(written).collect::<Vec<_>>(), lines(TO_SIDECAR[0]));
}

/// Recorded when sidecars began to deduplicate; who does not know of it reads the same messages without their epochs.
#[test]
fn the_windows_of_deduplication_are_read_and_written_to_the_letter() {
    let (control, sidecar) =
        (include_str!("wire/dedup.to-control.jsonl"), include_str!("wire/dedup.to-sidecar.jsonl"));
    let messages: Vec<ToControl> = read(control, LONGEST_TO_CONTROL);
    assert!(matches!(&messages[0], ToControl::Hello(hello) if hello.dedup_epoch.is_some()));
    assert_eq!(messages.iter().map(written).collect::<Vec<_>>(), lines(control));
    let messages: Vec<ToSidecar> = read(sidecar, LONGEST_TO_SIDECAR);
    assert!(matches!(&messages[0], ToSidecar::Update(update) if update.endpoints[0].dedup_epoch.is_some()));
    assert_eq!(messages.iter().map(written).collect::<Vec<_>>(), lines(sidecar));
}

#[test]
fn a_minor_version_newer_says_the_same_besides_what_is_not_known() {
    let (old, new): (Vec<ToControl>, Vec<ToControl>) =
        (read(TO_CONTROL[0], LONGEST_TO_CONTROL), read(TO_CONTROL[1], LONGEST_TO_CONTROL));
    assert!(matches!(new[1], ToControl::Unknown));
    same(old.iter().map(written), new.iter().filter(|one| !matches!(one, ToControl::Unknown)).map(written));
    let (old, new): (Vec<ToSidecar>, Vec<ToSidecar>) =
        (read(TO_SIDECAR[0], LONGEST_TO_SIDECAR), read(TO_SIDECAR[1], LONGEST_TO_SIDECAR));
    assert!(matches!(new[1], ToSidecar::Unknown));
    same(old.iter().map(written), new.iter().filter(|one| !matches!(one, ToSidecar::Unknown)).map(written));
}

fn same(old: impl ExactSizeIterator<Item = Value>, new: impl Iterator<Item = Value>) {
    let count = old.len();
    let mut seen = 0;
    for (old, mut new) in old.zip(new) {
        if let Some(minor) = new.pointer_mut("/versions/minor") {
            *minor = 0.into();
        }
        assert_eq!(old, new);
        seen += 1;
    }
    assert_eq!(seen, count);
}
