//! Signers of JSON Web Tokens, good and bad ones: a test writes header and payload as it likes.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair,
};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

/// A key pair, with a name and an algorithm.
#[derive(Debug)]
pub struct Signer {
    /// `kid`.
    pub id: String,
    /// `alg`.
    pub algorithm: &'static str,
    pair: Pair,
}

#[derive(Debug)]
enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl Signer {
    /// A fresh pair. `algorithm`: RS or PS with 256, 384 or 512, ES256, ES384 or EdDSA.
    ///
    /// # Panics
    /// Another algorithm.
    pub fn new(algorithm: &'static str, id: &str) -> Signer {
        let pair = match algorithm {
            "ES256" => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")),
            "ES384" => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key")),
            "EdDSA" => Pair::Ed(Ed25519KeyPair::generate().expect("a key")),
            "RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512" => {
                Pair::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")))
            }
            other => panic!("{other} is none of these"),
        };
        Signer { id: id.to_owned(), algorithm, pair }
    }

    /// The public key as a JSON Web Key.
    pub fn key(&self) -> Value {
        let code = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let mut key = match &self.pair {
            Pair::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                let curve = if self.algorithm == "ES256" { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": curve, "x": code(x), "y": code(y)})
            }
            Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": code(pair.public_key().as_ref())}),
            Pair::Rsa(pair) => {
                let (n, e) = rsa_numbers(pair.public_key().as_ref());
                json!({"kty": "RSA", "n": code(n), "e": code(e)})
            }
        };
        key["kid"] = self.id.clone().into();
        key["alg"] = self.algorithm.into();
        key["use"] = "sig".into();
        key
    }

    /// The public key's own bytes, as an attacker has them.
    pub fn public_bytes(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm, "typ": "JWT", "kid": self.id});
        self.signed(&header.to_string(), &claims.to_string())
    }

    /// A token with this header and payload as they are, signed.
    pub fn signed(&self, header: &str, payload: &str) -> String {
        let signed = unsigned(header, payload);
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Ec(pair) => pair.sign(&random, signed.as_bytes()).expect("a signature").as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let padding: &'static dyn RsaEncoding = match self.algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, signed.as_bytes(), &mut signature).expect("a signature");
                signature
            }
        };
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}

/// Header and payload without a signature: what is to be signed.
pub fn unsigned(header: &str, payload: &str) -> String {
    format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(payload.as_bytes()))
}

/// A token signed with a shared secret (HS256).
pub fn with_secret(secret: &[u8], header: &str, payload: &str) -> String {
    let signed = unsigned(header, payload);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

/// The JSON Web Key Set of these.
pub fn key_set<'s>(signers: impl IntoIterator<Item = &'s Signer>) -> String {
    json!({"keys": signers.into_iter().map(Signer::key).collect::<Vec<_>>()}).to_string()
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_secs()).expect("a date")
}

/// Modulus and exponent in the DER of an RSAPublicKey (RFC 8017, appendix A.1.1).
fn rsa_numbers(der: &[u8]) -> (&[u8], &[u8]) {
    /// The content of the first value, and what follows it.
    fn value(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, at) = match der[1] {
            short @ ..=0x7f => (usize::from(short), 2),
            0x81 => (usize::from(der[2]), 3),
            _ => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
        };
        (&der[at..at + length], &der[at + length..])
    }
    let (modulus, rest) = value(value(der).0);
    let (exponent, _) = value(rest);
    (modulus.strip_prefix(&[0]).unwrap_or(modulus), exponent)
}
