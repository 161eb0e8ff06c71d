//! Protobuf's wire format, read in place: so that spans are looked at, checked and copied without being decoded.

use std::ops::Range;

/// The value of a field; ranges are of the whole buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Varint(u64),
    Fixed64(u64),
    Bytes(Range<usize>),
    Fixed32(u32),
}

/// It is no protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads the fields of one message.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    all: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// Reads the message that is in a range of the buffer.
    pub(super) fn new(all: &'a [u8], range: Range<usize>) -> Reader<'a> {
        let end = range.end.min(all.len());
        Reader { all, at: range.start.min(end), end }
    }

    /// The next field's number and value.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Field)>, Malformed> {
        if self.at >= self.end {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        if number == 0 {
            return Err(Malformed);
        }
        let value = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                let end = self.at.checked_add(length).filter(|end| *end <= self.end).ok_or(Malformed)?;
                let range = self.at..end;
                self.at = end;
                Field::Bytes(range)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(Malformed),
        };
        Ok(Some((number, value)))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.all.get(self.at).filter(|_| self.at < self.end).ok_or(Malformed)?;
            self.at += 1;
            // The tenth byte has one bit left.
            if shift == 63 && byte > 1 {
                return Err(Malformed);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let end = self.at.checked_add(N).filter(|end| *end <= self.end).ok_or(Malformed)?;
        let bytes = self.all.get(self.at..end).and_then(|bytes| bytes.try_into().ok()).ok_or(Malformed)?;
        self.at = end;
        Ok(bytes)
    }
}

/// Appends a number as protobuf does.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field of bytes: a text or a message.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// How deep a value may be nested.
const DEEPEST: usize = 16;

/// Checks `KeyValue` messages and what is in them, and counts them: they cost memory when they are decoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget(pub(super) u32);

impl Budget {
    /// One more element.
    pub(super) fn spend(&mut self) -> Result<(), Malformed> {
        self.0 = self.0.checked_sub(1).ok_or(Malformed)?;
        Ok(())
    }

    /// Checks a `KeyValue`: the ranges of its key and of its value, which may not be there.
    pub(super) fn pair(
        &mut self,
        all: &[u8],
        range: Range<usize>,
        depth: usize,
    ) -> Result<(Range<usize>, Option<Range<usize>>), Malformed> {
        self.spend()?;
        let (mut key, mut value) = (0..0, None);
        let mut fields = Reader::new(all, range);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(range)) => {
                    text(all, &range)?;
                    key = range;
                }
                (2, Field::Bytes(range)) => {
                    self.value(all, range.clone(), depth)?;
                    value = Some(range);
                }
                (1 | 2, _) => return Err(Malformed),
                _ => {}
            }
        }
        Ok((key, value))
    }

    /// Checks an `AnyValue`.
    fn value(&mut self, all: &[u8], range: Range<usize>, depth: usize) -> Result<(), Malformed> {
        if depth > DEEPEST {
            return Err(Malformed);
        }
        let mut fields = Reader::new(all, range);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(range)) => {
                    text(all, &range)?;
                }
                (2 | 3, Field::Varint(_)) | (4, Field::Fixed64(_)) | (7, Field::Bytes(_)) => {}
                (5, Field::Bytes(range)) => self.each(all, range, |budget, range| {
                    budget.spend()?;
                    budget.value(all, range, depth + 1)
                })?,
                (6, Field::Bytes(range)) => self.each(all, range, |budget, range| {
                    budget.pair(all, range, depth + 1)?;
                    Ok(())
                })?,
                (1..=7, _) => return Err(Malformed),
                _ => {}
            }
        }
        Ok(())
    }

    /// Each of the messages in field 1.
    fn each(
        &mut self,
        all: &[u8],
        range: Range<usize>,
        mut check: impl FnMut(&mut Budget, Range<usize>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut fields = Reader::new(all, range);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(range)) => check(self, range)?,
                (1, _) => return Err(Malformed),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A text, which has to be UTF-8.
pub(super) fn text<'a>(all: &'a [u8], range: &Range<usize>) -> Result<&'a str, Malformed> {
    let bytes = all.get(range.clone()).ok_or(Malformed)?;
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prost_writes_is_read() {
        use opentelemetry_proto::tonic::trace::v1::Status;
        use prost::Message;
        let bytes = Status { message: "no".into(), code: 2 }.encode_to_vec();
        let mut fields = Reader::new(&bytes, 0..bytes.len());
        assert_eq!(fields.next(), Ok(Some((2, Field::Bytes(2..4)))));
        assert_eq!(fields.next(), Ok(Some((3, Field::Varint(2)))));
        assert_eq!(fields.next(), Ok(None));
    }

    #[test]
    fn garbage_ends_somewhere() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(0..60)).map(|_| random.u8(..)).collect();
            let mut fields = Reader::new(&bytes, 0..bytes.len());
            let mut count = 0;
            while let Ok(Some(_)) = fields.next() {
                count += 1;
                assert!(count <= bytes.len());
            }
            let _ = Budget(100).pair(&bytes, 0..bytes.len(), 0);
        }
        for bytes in [&[0x0a, 0x05, 1][..], &[0x80; 11], &[0x0b], &[0x00], &[0x09, 1]] {
            assert_eq!(Reader::new(bytes, 0..bytes.len()).next(), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn numbers_go_round() {
        for value in [0, 1, 127, 128, 300, u64::MAX] {
            let mut bytes = vec![0x08];
            put_varint(&mut bytes, value);
            let read = Reader::new(&bytes, 0..bytes.len()).next();
            assert_eq!(read, Ok(Some((1, Field::Varint(value)))));
        }
    }
}
