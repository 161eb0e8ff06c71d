//! Keys of issuers: JSON Web Key Sets (RFC 7517), read strictly where it matters and leniently where it does not: a key of an unknown kind
//! is not in the way of the others.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaPublicKeyComponents,
};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Map, Value};

use super::verify::object;

/// The largest key set, bytes.
pub const LARGEST: usize = 1024 * 1024;

/// How many keys of a set are kept; real sets have a handful.
const MOST_KEYS: usize = 256;

/// How signatures are made: what is known of JSON Web Algorithms (RFC 7518 section 3.1, RFC 8037), all of them with a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// With SHA-384.
    Rs384,
    /// With SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256, and a salt as long as that.
    Ps256,
    /// With SHA-384.
    Ps384,
    /// With SHA-512.
    Ps512,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// By its registered name, which has one spelling.
    pub fn from_word(word: &str) -> Option<Algorithm> {
        match word {
            "RS256" => Some(Algorithm::Rs256),
            "RS384" => Some(Algorithm::Rs384),
            "RS512" => Some(Algorithm::Rs512),
            "PS256" => Some(Algorithm::Ps256),
            "PS384" => Some(Algorithm::Ps384),
            "PS512" => Some(Algorithm::Ps512),
            "ES256" => Some(Algorithm::Es256),
            "ES384" => Some(Algorithm::Es384),
            "EdDSA" => Some(Algorithm::EdDsa),
            _ => None,
        }
    }
}

/// A public key, with the algorithms that may use it.
#[derive(Debug)]
pub struct Key {
    /// `kid`.
    pub id: Option<Box<str>>,
    verifiers: Vec<(Algorithm, ParsedPublicKey)>,
}

impl Key {
    /// What checks signatures of this algorithm, when the key may be used with it.
    pub fn verifier(&self, algorithm: Algorithm) -> Option<&ParsedPublicKey> {
        self.verifiers.iter().find(|(own, _)| *own == algorithm).map(|(_, key)| key)
    }
}

/// The keys of an issuer.
#[derive(Debug, Default)]
pub struct KeySet {
    /// Those that can be used.
    pub keys: Vec<Key>,
    /// Why others cannot, a sentence each.
    pub unusable: Vec<String>,
}

impl KeySet {
    /// Reads a key set, or a single key.
    ///
    /// # Errors
    /// It is none, or has no key that can be used.
    pub fn read(bytes: &[u8]) -> Result<KeySet, String> {
        let set = object(bytes).ok_or("it is not a JSON object, or one of its members appears twice")?;
        let alone;
        let list = match set.get("keys") {
            Some(Value::Array(list)) => list.as_slice(),
            None if set.contains_key("kty") => {
                alone = [Value::Object(set)];
                &alone
            }
            _ => return Err("it has no list `keys`, so it is not a key set".into()),
        };
        let mut keys = KeySet::default();
        for (number, written) in list.iter().enumerate() {
            if keys.keys.len() == MOST_KEYS {
                keys.unusable.push(format!("only the first {MOST_KEYS} keys count"));
                break;
            }
            let read = written.as_object().ok_or("it is not an object".into()).and_then(key);
            match read {
                Ok(key) => keys.keys.push(key),
                // One sentence each, but not of a million.
                Err(why) if keys.unusable.len() < 8 => {
                    keys.unusable.push(format!("key {}: {why}", number + 1))
                }
                Err(_) => {}
            }
        }
        if !keys.keys.is_empty() {
            return Ok(keys);
        }
        let why = keys.unusable.first().map_or("it is empty", String::as_str);
        Err(format!("none of its keys can be used: {why}"))
    }
}

fn key(written: &Map<String, Value>) -> Result<Key, String> {
    let text = |name: &str| match written.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(format!("`{name}` is not a text")),
    };
    if text("use")?.is_some_and(|word| word != "sig") {
        return Err("its `use` is not `sig`".into());
    }
    match written.get("key_ops") {
        None => {}
        Some(Value::Array(all)) if all.iter().any(|one| one == "verify") => {}
        Some(_) => return Err("its `key_ops` do not have `verify`".into()),
    }
    let bytes = |name: &str| {
        let text = text(name)?.ok_or_else(|| format!("`{name}` is missing"))?;
        let text = text.trim_end_matches('=');
        BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| format!("`{name}` is not base64url"))
    };
    let kind = text("kty")?.ok_or("`kty` is missing")?;
    let curve = text("crv")?.unwrap_or_default();
    let mut verifiers = match (kind, curve) {
        ("RSA", _) => rsa(&bytes("n")?, &bytes("e")?)?,
        ("EC", "P-256") => {
            let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point(&bytes("x")?, &bytes("y")?, 32)?);
            vec![(Algorithm::Es256, key.map_err(|_| "it is not a point of P-256")?)]
        }
        ("EC", "P-384") => {
            let key = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point(&bytes("x")?, &bytes("y")?, 48)?);
            vec![(Algorithm::Es384, key.map_err(|_| "it is not a point of P-384")?)]
        }
        ("OKP", "Ed25519") => {
            let point = bytes("x")?;
            if is_of_small_order(&point) {
                return Err("its point is of small order, so anybody can sign by it".into());
            }
            let key = ParsedPublicKey::new(&ED25519, point);
            vec![(Algorithm::EdDsa, key.map_err(|_| "it is not a key of Ed25519")?)]
        }
        ("oct", _) => return Err("it is a shared secret, and those are never taken".into()),
        _ => return Err("its kind is not known (RSA, EC with P-256 or P-384, OKP with Ed25519 are)".into()),
    };
    if let Some(word) = text("alg")? {
        let algorithm = Algorithm::from_word(word);
        verifiers.retain(|(own, _)| Some(*own) == algorithm);
        if verifiers.is_empty() {
            return Err("its `alg` is not known, or does not go with its kind".into());
        }
    }
    Ok(Key { id: text("kid")?.map(Box::from), verifiers })
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Vec<(Algorithm, ParsedPublicKey)>, String> {
    let plain =
        |bytes: &[u8]| bytes.iter().position(|byte| *byte != 0).map_or(Vec::new(), |at| bytes[at..].to_vec());
    let components = RsaPublicKeyComponents { n: plain(modulus), e: plain(exponent) };
    let bits = components.n.len() * 8 - components.n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err(format!("it has {bits} bits; 2048 to 8192 are taken"));
    }
    let with = |algorithm, parameters| {
        let key = components.to_parsed_public_key(parameters).map_err(|_| "it is not a key of RSA")?;
        Ok::<_, &str>((algorithm, key))
    };
    Ok(vec![
        with(Algorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256)?,
        with(Algorithm::Rs384, &RSA_PKCS1_2048_8192_SHA384)?,
        with(Algorithm::Rs512, &RSA_PKCS1_2048_8192_SHA512)?,
        with(Algorithm::Ps256, &RSA_PSS_2048_8192_SHA256)?,
        with(Algorithm::Ps384, &RSA_PSS_2048_8192_SHA384)?,
        with(Algorithm::Ps512, &RSA_PSS_2048_8192_SHA512)?,
    ])
}

/// Whether a point of Ed25519 has order 1, 2, 4 or 8 (RFC 7748 section 7 names why that matters): signatures of everything verify by it
/// without a private key, and the verifier does not look.
fn is_of_small_order(point: &[u8]) -> bool {
    /// Their `y`, in hexadecimal; the highest bit is the sign of `x`. The last two are the first two, not reduced.
    const ALL: [&str; 7] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let mut y = point.to_vec();
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    ALL.contains(&HEXLOWER.encode(&y).as_str())
}

/// The uncompressed form of a point (SEC 1).
fn point(x: &[u8], y: &[u8], size: usize) -> Result<Vec<u8>, String> {
    if x.len() != size || y.len() != size {
        return Err(format!("`x` and `y` have {} and {} bytes, not {size}", x.len(), y.len()));
    }
    Ok([&[4], x, y].concat())
}

#[cfg(test)]
mod tests;
