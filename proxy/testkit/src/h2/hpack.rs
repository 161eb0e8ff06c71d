//! HPACK (RFC 7541) by hand: an encoder that can also write what is malformed, and a whole decoder.

/// Code lengths of Appendix B, symbol by symbol and EOS last. The code is canonical, so the lengths are all of it.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// The static table of Appendix A, from index 1.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""),
    ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""),
    ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""),
    ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""),
    ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""),
    ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""),
    ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

/// An integer with a prefix of `bits` bits, the bits above it taken from `first` (section 5.1).
pub fn integer(first: u8, bits: u32, value: usize) -> Vec<u8> {
    let most = (1usize << bits) - 1;
    let byte = |n: usize| u8::try_from(n & 0xff).unwrap_or(0);
    if value < most {
        return vec![first | byte(value)];
    }
    let (mut out, mut rest) = (vec![first | byte(most)], value - most);
    while rest >= 128 {
        out.push(byte(rest % 128 + 128));
        rest /= 128;
    }
    out.push(byte(rest));
    out
}

/// A field that is in a table: index 1 to 61 is the static one.
pub fn indexed(index: usize) -> Vec<u8> {
    integer(0x80, 7, index)
}

/// A change of the dynamic table's size.
pub fn table_size(size: usize) -> Vec<u8> {
    integer(0x20, 5, size)
}

/// A literal field that is not indexed, in plain bytes: anything can be written, well-formed or not.
pub fn literal(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    named(0x00, name.as_ref(), value.as_ref())
}

/// A literal field that goes into the dynamic table.
pub fn literal_indexed(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    named(0x40, name.as_ref(), value.as_ref())
}

fn named(kind: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    for text in [name, value] {
        out.extend(integer(0, 7, text.len()));
        out.extend_from_slice(text);
    }
    out
}

/// A list of fields, each a literal that is not indexed.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// A decoder with its dynamic table.
#[derive(Debug)]
pub struct Decoder {
    entries: Vec<(String, String)>,
    size: usize,
    most: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: Vec::new(), size: 0, most: 4096 }
    }
}

impl Decoder {
    /// Decodes a whole header block.
    ///
    /// # Errors
    /// Says what is malformed.
    pub fn decode(&mut self, mut bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
        let mut out = Vec::new();
        while let Some(first) = bytes.first().copied() {
            if first & 0x80 != 0 {
                let index = read_integer(&mut bytes, 7)?;
                out.push(self.entry(index)?);
            } else if first & 0xe0 == 0x20 {
                self.most = read_integer(&mut bytes, 5)?;
                self.evict();
            } else {
                let keep = first & 0x40 != 0;
                let index = read_integer(&mut bytes, if keep { 6 } else { 4 })?;
                let name = if index == 0 { read_string(&mut bytes)? } else { self.entry(index)?.0 };
                let field = (name, read_string(&mut bytes)?);
                if keep {
                    self.size += field.0.len() + field.1.len() + 32;
                    self.entries.insert(0, field.clone());
                    self.evict();
                }
                out.push(field);
            }
        }
        Ok(out)
    }

    fn entry(&self, index: usize) -> Result<(String, String), String> {
        let fixed = index.checked_sub(1).and_then(|i| STATIC.get(i));
        if let Some((name, value)) = fixed {
            return Ok(((*name).into(), (*value).into()));
        }
        index
            .checked_sub(STATIC.len() + 1)
            .and_then(|i| self.entries.get(i).cloned())
            .ok_or_else(|| format!("index {index}"))
    }

    fn evict(&mut self) {
        while self.size > self.most {
            let Some((name, value)) = self.entries.pop() else { return };
            self.size -= name.len() + value.len() + 32;
        }
    }
}

fn read_integer(bytes: &mut &[u8], bits: u32) -> Result<usize, String> {
    let most = (1usize << bits) - 1;
    let mut next = || -> Result<usize, String> {
        let (first, rest) = bytes.split_first().ok_or("integer cut short")?;
        *bytes = rest;
        Ok(usize::from(*first))
    };
    let mut value = next()? & most;
    if value < most {
        return Ok(value);
    }
    for shift in (0..28).step_by(7) {
        let byte = next()?;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("integer too large".into())
}

fn read_string(bytes: &mut &[u8]) -> Result<String, String> {
    let coded = bytes.first().is_some_and(|b| b & 0x80 != 0);
    let length = read_integer(bytes, 7)?;
    if bytes.len() < length {
        return Err("string cut short".into());
    }
    let (text, rest) = bytes.split_at(length);
    *bytes = rest;
    let plain = if coded { unhuffman(text)? } else { text.to_vec() };
    Ok(plain.iter().map(|b| char::from(*b)).collect())
}

fn unhuffman(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let codes = codes();
    let (mut out, mut code, mut length) = (Vec::new(), 0u32, 0u8);
    for bit in bytes.iter().flat_map(|b| (0..8).rev().map(move |i| b >> i & 1)) {
        code = code << 1 | u32::from(bit);
        length += 1;
        if let Some((symbol, ..)) = codes.iter().find(|(_, l, c)| (*l, *c) == (length, code)) {
            out.push(u8::try_from(*symbol).map_err(|_| "EOS in a string")?);
            (code, length) = (0, 0);
        } else if length > 30 {
            return Err("no such code".into());
        }
    }
    if length > 7 || code != (1u32 << length) - 1 { Err("bad padding".into()) } else { Ok(out) }
}

/// Symbol, length and code, by length and then by symbol.
fn codes() -> Vec<(usize, u8, u32)> {
    let mut order: Vec<(usize, u8, u32)> = LENGTHS.iter().enumerate().map(|(s, l)| (s, *l, 0)).collect();
    order.sort_by_key(|(symbol, length, _)| (*length, *symbol));
    for i in 1..order.len() {
        order[i].2 = (order[i - 1].2 + 1) << (order[i].1 - order[i - 1].1);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541 appendix C.4.1 and C.4.2: two requests with Huffman coding and a dynamic table.
    #[test]
    fn decodes_the_examples_of_the_rfc() {
        let mut decoder = Decoder::default();
        let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        let fields = decoder.decode(first).unwrap();
        assert_eq!(fields[3], (":authority".into(), "www.example.com".into()));
        let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
        let fields = decoder.decode(second).unwrap();
        assert_eq!(fields[3].1, "www.example.com");
        assert_eq!(fields[4], ("cache-control".into(), "no-cache".into()));
    }

    #[test]
    fn reads_what_it_writes() {
        let long = "x".repeat(5000);
        let mut bytes = block(&[(":path", "/a"), ("b", &long)]);
        bytes.extend(literal_indexed("c", "d"));
        bytes.extend(indexed(62));
        let fields = Decoder::default().decode(&bytes).unwrap();
        assert_eq!(fields[1].1, long);
        assert_eq!(fields[2], fields[3]);
        assert!(Decoder::default().decode(&indexed(62)).is_err());
    }
}
