//! Protobuf, written directly into a buffer: a span takes no allocations of its own this way. Only what spans need.

/// Appends a number in base 128.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`varint`] takes for it.
pub const fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Bytes, a text, or a message whose bytes are known.
pub fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    length(out, field, value.len());
    out.extend_from_slice(value);
}

/// The head of a field that is as long as said; its bytes come next.
pub fn length(out: &mut Vec<u8>, field: u32, len: usize) {
    varint(out, u64::from(field << 3 | 2));
    varint(out, len as u64);
}

/// A field of the wire type `varint`.
pub fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field << 3));
    varint(out, value);
}

/// `fixed64`, and `double` by its bits.
pub fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field << 3 | 1));
    out.extend_from_slice(&value.to_le_bytes());
}

/// `fixed32`.
pub fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    varint(out, u64::from(field << 3 | 5));
    out.extend_from_slice(&value.to_le_bytes());
}

/// How long a field of bytes is, with a field number below 16.
const fn bytes_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// The attributes of one message (spans have them in field 9, events in field 3): `KeyValue`s.
#[derive(Debug)]
pub struct Attributes<'a> {
    out: &'a mut Vec<u8>,
    field: u32,
}

impl<'a> Attributes<'a> {
    /// They go to `out` as this field.
    pub fn new(out: &'a mut Vec<u8>, field: u32) -> Self {
        Attributes { out, field }
    }

    /// A `KeyValue` up to the bytes of its `AnyValue`, which are so many.
    fn key(&mut self, key: &str, value: usize) {
        length(self.out, self.field, bytes_len(key.len()) + bytes_len(value));
        bytes(self.out, 1, key.as_bytes());
        length(self.out, 2, value);
    }

    /// A text; nothing when it is empty.
    pub fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.key(key, bytes_len(value.len()));
            bytes(self.out, 1, value.as_bytes());
        }
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &str, value: bool) {
        self.key(key, 2);
        number(self.out, 2, u64::from(value));
    }

    /// A whole number.
    pub fn number(&mut self, key: &str, value: i64) {
        // Negative numbers are sent as their 64 bits.
        let value = value.cast_unsigned();
        self.key(key, 1 + varint_len(value));
        number(self.out, 3, value);
    }

    /// A number.
    pub fn float(&mut self, key: &str, value: f64) {
        self.key(key, 9);
        fixed64(self.out, 4, value.to_bits());
    }

    /// Texts.
    pub fn list<'t>(&mut self, key: &str, values: impl Iterator<Item = &'t str> + Clone) {
        let each = |value: &str| bytes_len(bytes_len(value.len()));
        let inner: usize = values.clone().map(each).sum();
        self.key(key, bytes_len(inner));
        length(self.out, 5, inner);
        for value in values {
            length(self.out, 1, bytes_len(value.len()));
            bytes(self.out, 1, value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;

    #[test]
    fn a_varint_is_as_long_as_it_says() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
                assert_eq!(prost::encoding::decode_varint(&mut &out[..]), Ok(value));
            }
        }
    }

    #[test]
    fn attributes_are_what_others_read() {
        let mut out = Vec::new();
        let long = "x".repeat(300);
        let mut attributes = Attributes::new(&mut out, 9);
        attributes.text("text", &long);
        attributes.text("empty", "");
        attributes.flag("flag", false);
        attributes.number("below", -7);
        attributes.number("large", i64::MAX);
        attributes.float("float", 0.1);
        attributes.list("list", ["a", &long, ""].into_iter());
        let span = Span::decode(&out[..]).unwrap();
        let mut read = Vec::new();
        for attribute in span.attributes {
            let value = match attribute.value.and_then(|value| value.value) {
                Some(Value::StringValue(text)) => format!("{}", text.len()),
                Some(Value::ArrayValue(list)) => format!("{:?}", list.values.len()),
                other => format!("{other:?}"),
            };
            read.push(format!("{} {value}", attribute.key));
        }
        let expected = [
            "text 300",
            "flag Some(BoolValue(false))",
            "below Some(IntValue(-7))",
            "large Some(IntValue(9223372036854775807))",
            "float Some(DoubleValue(0.1))",
            "list 3",
        ];
        assert_eq!(read, expected);
    }
}
