//! A segment: a file of records, each with its length and checksum, that is only ever appended to.
//!
//! `PFSPANS1`, then records: length, CRC-32, payload. A payload says who made spans (`1`, a `ResourceSpans` without
//! spans), or holds spans of one trace (`2`, trace id, where its origin is, where the record before of the same trace
//! is, then a `ScopeSpans` of nothing but spans). Numbers are little-endian; places are offsets in the file, 0 is none.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pilotfish_filters::trace::TraceId;

/// The first bytes of the file.
pub(super) const MAGIC: &[u8; 8] = b"PFSPANS1";
/// Length and checksum.
const HEAD: usize = 8;
/// No record is longer, bytes.
pub(super) const LONGEST_RECORD: usize = 4 << 20;
/// What is before the spans in a payload of spans.
const SPANS_HEAD: usize = 1 + 16 + 4 + 4;
/// So much is read at once: most records are shorter.
const READ: usize = 4 << 10;

const ORIGIN: u8 = 1;
const SPANS: u8 = 2;

/// What a segment holds of a trace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    /// The trace's place in the index.
    pub(super) trace: u32,
    /// Its newest record.
    pub(super) last: u32,
    /// Its spans.
    pub(super) spans: u32,
}

/// A segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) file: Arc<File>,
    folder: PathBuf,
    /// Bytes that count.
    pub(super) length: u64,
    /// Bytes of the file beside it.
    pub(super) beside: u64,
    /// When its first and last spans came, milliseconds since 1970.
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) held: Vec<Held>,
}

/// The file of a segment's number.
pub(super) fn path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:010}.spans"))
}

/// What a sealed segment's index is kept in.
pub(super) fn path_beside(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:010}.index"))
}

impl Segment {
    /// A new one.
    pub(super) fn create(folder: &Path, number: u32, now: u64) -> io::Result<Segment> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path(folder, number))?;
        file.write_all_at(MAGIC, 0)?;
        Ok(Segment::of(folder, number, file, MAGIC.len() as u64, now))
    }

    /// One that is there.
    pub(super) fn open(folder: &Path, number: u32) -> io::Result<Segment> {
        let file = OpenOptions::new().read(true).write(true).open(path(folder, number))?;
        let length = file.metadata()?.len();
        let written = file.metadata()?.modified().ok();
        let written = written.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let written = written.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        Ok(Segment::of(folder, number, file, length, written))
    }

    fn of(folder: &Path, number: u32, file: File, length: u64, now: u64) -> Segment {
        let folder = folder.to_owned();
        Segment {
            number,
            file: Arc::new(file),
            folder,
            length,
            beside: 0,
            first: now,
            last: now,
            held: Vec::new(),
        }
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.length + self.beside
    }

    /// Removes its files; who reads it just now may go on.
    pub(super) fn remove(&self) -> io::Result<()> {
        let _ = std::fs::remove_file(path_beside(&self.folder, self.number));
        std::fs::remove_file(path(&self.folder, self.number))
    }
}

/// Appends a record.
fn put(out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; HEAD]);
    payload(out);
    let crc = crc32fast::hash(&out[at + HEAD..]);
    let length = (out.len() - at - HEAD) as u32;
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    out[at + 4..at + HEAD].copy_from_slice(&crc.to_le_bytes());
}

/// Appends who made spans.
pub(super) fn put_origin(out: &mut Vec<u8>, encoded: &[u8]) {
    put(out, |out| {
        out.push(ORIGIN);
        out.extend_from_slice(encoded);
    });
}

/// Appends spans of one trace.
pub(super) fn put_spans<'a>(
    out: &mut Vec<u8>,
    trace: TraceId,
    origin: u32,
    before: u32,
    spans: impl Iterator<Item = &'a [u8]>,
) {
    put(out, |out| {
        out.push(SPANS);
        out.extend_from_slice(&trace.0);
        out.extend_from_slice(&origin.to_le_bytes());
        out.extend_from_slice(&before.to_le_bytes());
        for span in spans {
            crate::traces::wire::put_bytes(out, 2, span);
        }
    });
}

/// A record.
#[derive(Debug)]
pub(super) enum Record<'a> {
    /// A `ResourceSpans` without spans.
    Origin(&'a [u8]),
    /// Spans of one trace.
    Spans {
        trace: TraceId,
        origin: u32,
        before: u32,
        /// A `ScopeSpans` of nothing but spans.
        spans: &'a [u8],
    },
}

fn parse(payload: &[u8]) -> Option<Record<'_>> {
    match *payload.first()? {
        ORIGIN => Some(Record::Origin(payload.get(1..)?)),
        SPANS => {
            let number = |at: usize| Some(u32::from_le_bytes(payload.get(at..at + 4)?.try_into().ok()?));
            Some(Record::Spans {
                trace: TraceId(payload.get(1..17)?.try_into().ok()?),
                origin: number(17)?,
                before: number(21)?,
                spans: payload.get(SPANS_HEAD..)?,
            })
        }
        _ => None,
    }
}

/// Length and checksum of a record that begins here; none when it cannot be one.
fn head(bytes: &[u8]) -> Option<(usize, u32)> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(bytes.get(4..HEAD)?.try_into().ok()?);
    (length > 0 && length <= LONGEST_RECORD).then_some((length, crc))
}

/// Reads records of a file by their places.
#[derive(Debug, Default)]
pub(super) struct Records {
    buffer: Vec<u8>,
}

impl Records {
    /// The record at a place.
    ///
    /// # Errors
    /// The disk's; there is no whole record.
    pub(super) fn read(&mut self, file: &File, at: u32) -> io::Result<Record<'_>> {
        let torn = || io::Error::new(io::ErrorKind::InvalidData, "a record of the trace store is damaged");
        self.buffer.resize(READ, 0);
        let mut have = file.read_at(&mut self.buffer, u64::from(at))?;
        let (length, crc) = head(&self.buffer[..have]).ok_or_else(torn)?;
        if have < HEAD + length {
            self.buffer.resize(HEAD + length, 0);
            file.read_exact_at(&mut self.buffer[have..], u64::from(at) + have as u64)?;
            have = HEAD + length;
        }
        let payload = self.buffer[..have].get(HEAD..HEAD + length).ok_or_else(torn)?;
        if crc32fast::hash(payload) != crc {
            return Err(torn());
        }
        parse(payload).ok_or_else(torn)
    }
}

/// The record that begins here, and how many bytes it takes; its checksum is not looked at. None when it is not whole.
pub(super) fn next(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let (length, _) = head(bytes)?;
    Some((parse(bytes.get(HEAD..HEAD + length)?)?, HEAD + length))
}

/// Goes through the whole file: each record with its place. How many bytes are well; what comes after was torn.
///
/// # Errors
/// The disk's; it is no segment.
pub(super) fn walk(file: &File, mut each: impl FnMut(u32, Record<'_>)) -> io::Result<u64> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(u32::MAX as usize);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    if !bytes.starts_with(MAGIC) {
        return Ok(0);
    }
    let mut at = MAGIC.len();
    while let Some((length, crc)) = bytes.get(at..).and_then(head) {
        let Some(payload) = bytes.get(at + HEAD..at + HEAD + length) else { break };
        if crc32fast::hash(payload) != crc {
            break;
        }
        let Some(record) = parse(payload) else { break };
        each(at as u32, record);
        at += HEAD + length;
    }
    Ok(at as u64)
}
