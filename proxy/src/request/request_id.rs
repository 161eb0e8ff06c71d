//! `x-request-id`: a random UUID (version 4, RFC 9562 section 5.4), as Envoy makes it when the caller sent none.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A request id as text, on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; 36]);

impl RequestId {
    /// A new id from 122 random bits. It names a request in logs; it is no secret.
    pub fn new(rng: &mut fastrand::Rng) -> Self {
        let bits = (rng.u128(..) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let mut text = [b'-'; 36];
        let mut at = 0;
        for (i, byte) in bits.to_be_bytes().into_iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                at += 1;
            }
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        RequestId(text)
    }

    /// The 36 characters.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_form_of_a_version_4_uuid() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..1000 {
            let id = RequestId::new(&mut rng);
            let text = std::str::from_utf8(id.as_bytes()).unwrap();
            let parts: Vec<_> = text.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{text}");
            assert_eq!(&text[14..15], "4");
            assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
        }
        assert_ne!(RequestId::new(&mut rng), RequestId::new(&mut rng));
    }
}
