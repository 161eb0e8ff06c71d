//! What the index knew of the traces of a segment, kept beside it when it is full: so that a start reads a tenth.

use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pilotfish_filters::trace::TraceId;

use super::index::{Index, Portrait};
use super::segment::{Held, Segment, path_beside};

const MAGIC: &[u8; 8] = b"PFINDEX1";

/// Writes a segment's index beside it; how many bytes it has.
///
/// # Errors
/// The disk's; without the file the next start reads the segment.
pub(super) fn write(folder: &Path, segment: &Segment, index: &Index) -> io::Result<u64> {
    let bytes = encoded(segment, index);
    let (path, beside) = (path_beside(folder, segment.number), folder.join("index.new"));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let written = file.write_all(&bytes).and_then(|()| std::fs::rename(&beside, &path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written.map(|()| bytes.len() as u64)
}

fn encoded(segment: &Segment, index: &Index) -> Vec<u8> {
    let portraits: Vec<(Held, Portrait)> =
        segment.held.iter().filter_map(|held| Some((*held, index.portrait(held.trace)?))).collect();
    let mut pairs: Vec<u32> = portraits.iter().flat_map(|(_, portrait)| portrait.pairs.clone()).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let mut out = Vec::with_capacity(64 * portraits.len() + 4096);
    out.extend_from_slice(MAGIC);
    for number in [segment.length, segment.first, segment.last] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&(pairs.len() as u32).to_le_bytes());
    for pair in &pairs {
        let (service, name) = index.names.get(*pair);
        put_text(&mut out, service);
        put_text(&mut out, name);
    }
    out.extend_from_slice(&(portraits.len() as u32).to_le_bytes());
    for (held, portrait) in &portraits {
        out.extend_from_slice(&portrait.id.0);
        for number in [portrait.start, portrait.end, portrait.root_start] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [held.last, held.spans] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(portrait.flags);
        put_text(&mut out, portrait.workflow.as_deref().unwrap_or_default());
        out.extend_from_slice(&(portrait.pairs.len() as u16).to_le_bytes());
        for pair in &portrait.pairs {
            let place = pairs.binary_search(pair).unwrap_or(0) as u32;
            out.extend_from_slice(&place.to_le_bytes());
        }
    }
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Takes the index beside a segment; false when there is none that fits.
pub(super) fn load(folder: &Path, segment: &mut Segment, index: &mut Index) -> bool {
    let Ok(bytes) = std::fs::read(path_beside(folder, segment.number)) else { return false };
    // All of it is read before anything is taken.
    let Some(read) = decoded(&bytes, segment.length) else { return false };
    let numbers: Vec<u32> =
        read.names.iter().map(|(service, name)| index.names.pair(service, name)).collect();
    (segment.first, segment.last, segment.beside) = (read.first, read.last, bytes.len() as u64);
    for (mut portrait, last, spans) in read.traces {
        for pair in &mut portrait.pairs {
            *pair = numbers.get(*pair as usize).copied().unwrap_or(super::names::OTHER);
        }
        let trace = index.merge(portrait, spans);
        index.set_place(trace, segment.number, segment.held.len() as u32);
        segment.held.push(Held { trace, last, spans });
    }
    true
}

#[derive(Debug, Default)]
struct Read<'a> {
    first: u64,
    last: u64,
    names: Vec<(&'a str, &'a str)>,
    traces: Vec<(Portrait, u32, u32)>,
}

fn decoded(bytes: &[u8], length: u64) -> Option<Read<'_>> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut body = Bytes(body.strip_prefix(MAGIC)?);
    if body.u64()? != length {
        return None;
    }
    let mut read = Read { first: body.u64()?, last: body.u64()?, ..Read::default() };
    for _ in 0..body.u32()? {
        read.names.push((body.text()?, body.text()?));
    }
    for _ in 0..body.u32()? {
        let mut portrait = Portrait {
            id: TraceId(body.take()?),
            start: body.u64()?,
            end: body.u64()?,
            root_start: body.u64()?,
            ..Portrait::default()
        };
        let (last, spans) = (body.u32()?, body.u32()?);
        let [flags] = body.take()?;
        portrait.flags = flags;
        portrait.workflow = Some(body.text()?).filter(|text| !text.is_empty()).map(Into::into);
        let pairs = u16::from_le_bytes(body.take()?);
        portrait.pairs = (0..pairs).map(|_| body.u32()).collect::<Option<_>>()?;
        read.traces.push((portrait, last, spans));
    }
    body.0.is_empty().then_some(read)
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}
