//! `private_key_jwt`: a client proves itself to a token endpoint by a token that it signs (RFC 7523 section 2.2, RFC 7521 section 4.2).

use aws_lc_rs::rand::{SystemRandom, fill};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RsaKeyPair,
};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use zeroize::Zeroizing;

use crate::tls::outside;

/// `client_assertion_type`.
pub(super) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How long it is good, seconds: for one question, and clocks that differ a little.
const LIFE: u64 = 60;

/// A new one, for this endpoint only. The key's file is read each time, so another key is taken at once.
///
/// # Errors
/// The file cannot be read, or has no key that can sign; without any of it.
pub(super) fn signed(
    file: &str,
    key_id: Option<&str>,
    client: &str,
    audience: &str,
    now: u64,
) -> Result<Zeroizing<String>, String> {
    let key = Key::of(&outside::private_key(file)?).ok_or_else(|| {
        format!("{file}: a key that signs is one of P-256, P-384, Ed25519, or RSA of at least 2048 bits")
    })?;
    let mut number = [0; 16];
    fill(&mut number).map_err(|_| "there is no randomness")?;
    let mut head = json!({ "alg": key.algorithm(), "typ": "JWT" });
    if let Some(id) = key_id {
        head["kid"] = id.into();
    }
    let claims = json!({
        "iss": client,
        "sub": client,
        "aud": audience,
        "iat": now,
        "exp": now + LIFE,
        "jti": HEXLOWER.encode(&number),
    });
    let part = |value: &serde_json::Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let mut text = Zeroizing::new(format!("{}.{}", part(&head), part(&claims)));
    let signature = key.sign(text.as_bytes()).ok_or_else(|| format!("{file}: the key does not sign"))?;
    text.push('.');
    text.push_str(&BASE64URL_NOPAD.encode(&signature));
    Ok(text)
}

enum Key {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    /// Which one it is, only trying says.
    fn of(der: &PrivateKeyDer<'_>) -> Option<Key> {
        let bytes = der.secret_der();
        let ec = |algorithm| EcdsaKeyPair::from_private_key_der(algorithm, bytes).ok();
        if let Some(pair) = ec(&ECDSA_P256_SHA256_FIXED_SIGNING) {
            return Some(Key::P256(pair));
        }
        if let Some(pair) = ec(&ECDSA_P384_SHA384_FIXED_SIGNING) {
            return Some(Key::P384(pair));
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
            return Some(Key::Ed25519(pair));
        }
        let rsa = RsaKeyPair::from_pkcs8(bytes).or_else(|_| RsaKeyPair::from_der(bytes)).ok()?;
        (rsa.public_modulus_len() >= 256 && !rsa.public_key().as_ref().is_empty()).then_some(Key::Rsa(rsa))
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Key::P256(_) => "ES256",
            Key::P384(_) => "ES384",
            Key::Rsa(_) => "RS256",
            Key::Ed25519(_) => "EdDSA",
        }
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        Some(match self {
            Key::P256(pair) | Key::P384(pair) => pair.sign(&random, message).ok()?.as_ref().to_vec(),
            Key::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                signature
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
        UnparsedPublicKey, VerificationAlgorithm,
    };
    use data_encoding::BASE64;
    use serde_json::Value;

    use super::*;

    /// `alg`, the private key, the public key, and what verifies by it.
    type Row = (&'static str, Vec<u8>, Vec<u8>, &'static dyn VerificationAlgorithm);

    fn file(folder: &std::path::Path, der: &[u8]) -> String {
        let path = folder.join("key.pem");
        let text =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64.encode(der));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn part(text: &str) -> Value {
        serde_json::from_slice(&BASE64URL_NOPAD.decode(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn each_kind_of_key_signs_with_its_algorithm() {
        let (p256, p384) = (&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED_SIGNING);
        let (p256, p384) = (EcdsaKeyPair::generate(p256).unwrap(), EcdsaKeyPair::generate(p384).unwrap());
        let (ed, rsa) =
            (Ed25519KeyPair::generate().unwrap(), RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        let public = |key: &[u8]| key.to_vec();
        let rows: [Row; 4] = [
            (
                "ES256",
                p256.to_pkcs8v1().unwrap().as_ref().to_vec(),
                public(p256.public_key().as_ref()),
                &ECDSA_P256_SHA256_FIXED,
            ),
            (
                "ES384",
                p384.to_pkcs8v1().unwrap().as_ref().to_vec(),
                public(p384.public_key().as_ref()),
                &ECDSA_P384_SHA384_FIXED,
            ),
            ("EdDSA", ed.to_pkcs8v1().unwrap().as_ref().to_vec(), public(ed.public_key().as_ref()), &ED25519),
            (
                "RS256",
                rsa.as_der().unwrap().as_ref().to_vec(),
                public(rsa.public_key().as_ref()),
                &RSA_PKCS1_2048_8192_SHA256,
            ),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (algorithm, private, public, verifies) in rows {
            let path = file(folder.path(), &private);
            let make = || signed(&path, Some("k1"), "me", "https://idp.test/token", 1_000).unwrap();
            let (text, another) = (make(), make());
            let parts: Vec<&str> = text.split('.').collect();
            let (head, claims) = (part(parts[0]), part(parts[1]));
            assert_eq!((&head["alg"], &head["kid"]), (&algorithm.into(), &"k1".into()));
            assert_eq!(claims["aud"], "https://idp.test/token");
            assert_eq!(
                (&claims["iss"], &claims["sub"], &claims["exp"]),
                (&"me".into(), &"me".into(), &1_060.into())
            );
            assert_ne!(claims["jti"], part(another.split('.').nth(1).unwrap())["jti"], "each is good once");
            let signature = BASE64URL_NOPAD.decode(parts[2].as_bytes()).unwrap();
            let message = format!("{}.{}", parts[0], parts[1]);
            UnparsedPublicKey::new(verifies, public).verify(message.as_bytes(), &signature).unwrap();
        }
        let none = file(folder.path(), b"no key at all");
        assert!(signed(&none, None, "me", "x", 0).unwrap_err().contains("a key that signs"));
        assert!(signed("/nowhere", None, "me", "x", 0).unwrap_err().starts_with("/nowhere: "));
    }
}
