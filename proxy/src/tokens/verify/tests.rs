//! Tokens of every kind of attack, without a network.

use std::time::Duration;

use pilotfish_filters::tokens::{ClaimTo, KeySource};
use pilotfish_testkit::tokens::{Signer, key_set, unsigned, with_secret};
use serde_json::json;

use super::*;

fn rule() -> TokenRule {
    TokenRule {
        name: "default/a rule 1".into(),
        issuer: "https://issuer".into(),
        audiences: ["us".into()].into(),
        places: Box::default(),
        keys: KeySource::Uri { uri: "http://keys".into(), timeout: Duration::from_secs(1) },
        forward: false,
        payload_to: Some("x-payload".into()),
        claims_to: [
            ("x-sub", "sub"),
            ("x-team", "org.team"),
            ("x-list", "groups"),
            ("x-url", "https://x.y/role"),
        ]
        .map(|(header, claim)| ClaimTo { header: header.into(), claim: claim.into() })
        .into(),
        space_delimited: Box::default(),
        required: false,
    }
}

fn claims() -> Value {
    json!({"iss": "https://issuer", "sub": "alice", "aud": ["others", "us"], "azp": "app", "exp": 2000, "nbf": 1000,
        "org": {"team": 7}, "groups": ["a"], "https://x.y/role": "r"})
}

fn keys<'s>(signers: impl IntoIterator<Item = &'s Signer>) -> KeySet {
    KeySet::read(key_set(signers).as_bytes()).unwrap()
}

fn check(token: &str, keys: &KeySet) -> Result<Verified, Refusal> {
    parse(token)?.check(0, &rule(), Some(keys))
}

/// A token of `signer` with these members put into the usual claims.
fn with(signer: &Signer, members: Value) -> String {
    let mut claims = claims();
    for (name, value) in members.as_object().unwrap() {
        claims[name] = value.clone();
    }
    signer.token(&claims)
}

#[test]
fn every_algorithm_verifies_its_own_and_nothing_else() {
    let signers: Vec<Signer> =
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
            .into_iter()
            .map(|algorithm| Signer::new(algorithm, algorithm))
            .collect();
    let all = keys(&signers);
    for signer in &signers {
        let token = signer.token(&claims());
        let verified = check(&token, &all).unwrap();
        assert_eq!(&*verified.claims.principal, "https://issuer/alice");
        assert_eq!(verified.claims.audiences, ["others".into(), "us".into()].into());
        assert_eq!(verified.claims.presenter.as_deref(), Some("app"));
        // One bit of the signature, and one of the payload.
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        bytes[10] ^= 1;
        let broken = format!("{signed}.{}", BASE64URL_NOPAD.encode(&bytes));
        assert_eq!(check(&broken, &all), Err(Refusal::Signature), "{}", signer.algorithm);
        let header = json!({"alg": signer.algorithm, "kid": signer.id}).to_string();
        let other =
            unsigned(&header, &json!({"iss": "https://issuer", "aud": "us", "sub": "mallory"}).to_string());
        assert_eq!(check(&format!("{other}.{signature}"), &all), Err(Refusal::Signature));
        assert_eq!(check(&format!("{other}."), &all), Err(Refusal::Signature));
        // Under the name of each other algorithm, with its own key.
        for wrong in signers.iter().filter(|one| one.algorithm != signer.algorithm) {
            let header = json!({"alg": wrong.algorithm, "kid": signer.id}).to_string();
            let token = signer.signed(&header, &claims().to_string());
            assert_eq!(
                check(&token, &all),
                Err(Refusal::Algorithm),
                "{} as {}",
                signer.algorithm,
                wrong.algorithm
            );
        }
    }
}

#[test]
fn none_secrets_and_embedded_keys_are_refused() {
    let rsa = Signer::new("RS256", "k");
    let mallory = Signer::new("ES256", "k");
    let set = keys([&rsa]);
    let payload = claims().to_string();
    for word in ["none", "None", "NONE", "nOnE", "HS256", "HS384", "ps256", "ES512", "rs256", ""] {
        let token = format!("{}.", unsigned(&json!({"alg": word, "kid": "k"}).to_string(), &payload));
        assert_eq!(check(&token, &set), Err(Refusal::Algorithm), "{word}");
    }
    // The public key as a shared secret.
    let key = rsa.key();
    for secret in [rsa.public_bytes(), key.to_string().into_bytes(), key_set([&rsa]).into_bytes()] {
        for word in ["HS256", "RS256"] {
            let token = with_secret(&secret, &json!({"alg": word, "kid": "k"}).to_string(), &payload);
            assert!(check(&token, &set).is_err());
        }
    }
    // Keys that the token brings along, or points at.
    let header = json!({"alg": "ES256", "kid": "k", "jwk": mallory.key(), "jku": "http://127.0.0.1:1/keys",
        "x5u": "http://127.0.0.1:1/chain", "x5c": ["AAAA"]});
    assert_eq!(check(&mallory.signed(&header.to_string(), &payload), &set), Err(Refusal::Algorithm));
    let header = json!({"alg": "RS256", "kid": "k", "jwk": rsa.key(), "jku": "http://127.0.0.1:1/keys"});
    assert!(check(&rsa.signed(&header.to_string(), &payload), &set).is_ok(), "they are not looked at");
    let header = json!({"alg": "RS256", "kid": "k", "crit": ["exp"]});
    assert_eq!(check(&rsa.signed(&header.to_string(), &payload), &set), Err(Refusal::Critical));
    // Shared secrets in a key set are never keys.
    let oct = json!({"keys": [{"kty": "oct", "k": "AAAA", "kid": "k", "alg": "HS256"}]}).to_string();
    assert!(KeySet::read(oct.as_bytes()).unwrap_err().contains("shared secret"));
}

#[test]
fn a_key_is_found_by_its_name_when_there_are_names() {
    let (old, new) = (Signer::new("ES256", "old"), Signer::new("ES256", "new"));
    assert_eq!(check(&new.token(&claims()), &keys([&old])), Err(Refusal::UnknownKey));
    // Under another's name.
    let forged = new.signed(&json!({"alg": "ES256", "kid": "old"}).to_string(), &claims().to_string());
    assert_eq!(check(&forged, &keys([&old, &new])), Err(Refusal::Signature));
    // Without a name every key may be it.
    let nameless = new.signed(r#"{"alg":"ES256"}"#, &claims().to_string());
    assert!(check(&nameless, &keys([&old, &new])).is_ok());
    assert_eq!(check(&nameless, &keys([&old])), Err(Refusal::UnknownKey));
    let mut without = old.key();
    without.as_object_mut().unwrap().remove("kid");
    let without = KeySet::read(without.to_string().as_bytes()).unwrap();
    assert!(check(&old.token(&claims()), &without).is_ok());
}

#[test]
fn issuer_and_audience_are_as_the_rule_says() {
    let signer = Signer::new("EdDSA", "k");
    let set = keys([&signer]);
    let token = |members| check(&with(&signer, members), &set).map(drop);
    assert_eq!(token(json!({"aud": "us"})), Ok(()));
    assert_eq!(token(json!({"aud": "https://us/"})), Ok(()), "as Envoy compares");
    assert_eq!(token(json!({"aud": "them"})), Err(Refusal::Audience));
    assert_eq!(token(json!({"aud": []})), Err(Refusal::Audience));
    assert_eq!(token(json!({"aud": null})), Err(Refusal::Malformed));
    assert_eq!(token(json!({"aud": ["us", 1]})), Err(Refusal::Malformed));
    assert_eq!(token(json!({"iss": "https://issuer/"})), Err(Refusal::Issuer));
    assert_eq!(token(json!({"iss": ["https://issuer", "https://evil"]})), Err(Refusal::Malformed));
    let mut without = claims();
    without.as_object_mut().unwrap().remove("aud");
    assert_eq!(check(&signer.token(&without), &set), Err(Refusal::Audience));
    without.as_object_mut().unwrap().remove("iss");
    assert_eq!(check(&signer.token(&without), &set), Err(Refusal::Issuer));
}

#[test]
fn times_have_a_minute_of_skew() {
    let signer = Signer::new("EdDSA", "k");
    let set = keys([&signer]);
    let at = |members, now| check(&with(&signer, members), &set).and_then(|verified| verified.at(now));
    assert_eq!(at(json!({}), 1500), Ok(()));
    assert_eq!(at(json!({}), 2059), Ok(()));
    assert_eq!(at(json!({}), 2060), Err(Refusal::Expired));
    assert_eq!(at(json!({}), 940), Ok(()));
    assert_eq!(at(json!({}), 939), Err(Refusal::NotYet));
    assert_eq!(at(json!({"iat": 1900}), 1500), Err(Refusal::NotYet), "issued tomorrow");
    assert_eq!(at(json!({"exp": 2000.5}), 2060), Ok(()));
    assert_eq!(at(json!({"exp": 1e300}), 5_000_000), Ok(()));
    assert_eq!(at(json!({"exp": -1e300}), 1500), Err(Refusal::Expired));
    for wrong in [json!("2000"), json!(null), json!([2000]), json!(true)] {
        assert_eq!(at(json!({"exp": wrong}), 1500), Err(Refusal::Malformed));
    }
    let mut for_ever = claims();
    for_ever.as_object_mut().unwrap().remove("exp");
    assert_eq!(check(&signer.token(&for_ever), &set).unwrap().at(1 << 40), Ok(()), "as in Envoy");
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let signer = Signer::new("EdDSA", "k");
    let set = keys([&signer]);
    let header = r#"{"alg":"EdDSA","kid":"k"}"#;
    let good = r#"{"iss":"https://issuer","sub":"a","aud":"us"}"#;
    assert!(check(&signer.signed(header, good), &set).is_ok());
    for payload in [
        r#"{"iss":"https://evil","iss":"https://issuer","aud":"us"}"#,
        r#"{"iss":"https://issuer","\u0069ss":"https://evil","aud":"us"}"#,
        r#"{"iss":"https://issuer","aud":"us","org":{"a":1,"a":2}}"#,
        r#"{"iss":"https://issuer","aud":"us"} {}"#,
        r#"["iss"]"#,
        r#""iss""#,
        "",
        "{",
    ] {
        assert_eq!(check(&signer.signed(header, payload), &set), Err(Refusal::Malformed), "{payload}");
    }
    for header in [
        r#"{"alg":"none","alg":"EdDSA"}"#,
        r#"{"kid":"k"}"#,
        r#"{"alg":1}"#,
        r#"{"alg":"EdDSA","kid":["k"]}"#,
    ] {
        assert_eq!(check(&signer.signed(header, good), &set), Err(Refusal::Malformed), "{header}");
    }
    let token = signer.signed(header, good);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let deep = signer.signed(header, &format!(r#"{{"iss":"https://issuer","aud":"us","x":{deep}}}"#));
    for token in
        [&token[1..], &format!("{token}.x"), &format!("{token}="), "", ".", "..", "...", "a.b.c", &deep]
    {
        assert_eq!(check(token, &set), Err(Refusal::Malformed), "{token:.80}");
    }
    // The last base64 character has bits that mean nothing; a second spelling of a token is no token.
    let other = format!("{}B", &token[..token.len() - 1]);
    assert!(other == token || check(&other, &set).is_err());
}

#[test]
fn claims_become_headers() {
    let signer = Signer::new("EdDSA", "k");
    let token = signer.token(&claims());
    let verified = check(&token, &keys([&signer])).unwrap();
    let headers: Vec<(&str, &str)> =
        verified.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let payload = token.split('.').nth(1).unwrap();
    let list = BASE64.encode(br#"["a"]"#);
    assert_eq!(
        headers,
        [("x-payload", payload), ("x-sub", "alice"), ("x-team", "7"), ("x-list", &list), ("x-url", "r")]
    );
}

#[test]
fn no_other_spelling_of_a_token_is_good() {
    let mut rng = fastrand::Rng::with_seed(7);
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ {";
    for signer in [Signer::new("ES256", "k"), Signer::new("EdDSA", "k")] {
        let set = keys([&signer]);
        let token = signer.token(&claims());
        for _ in 0..2000 {
            let mut other = token.clone().into_bytes();
            for _ in 0..=rng.usize(..2) {
                let at = rng.usize(..other.len());
                let byte = alphabet[rng.usize(..alphabet.len())];
                match rng.u8(..3) {
                    0 => other[at] = byte,
                    1 => other.insert(at, byte),
                    _ => drop(other.remove(at)),
                }
            }
            let other = String::from_utf8(other).unwrap();
            assert!(other == token || check(&other, &set).is_err(), "{other}\n{token}");
        }
    }
}
