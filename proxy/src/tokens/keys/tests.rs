//! Key sets as issuers write them, and as nobody should.

use pilotfish_testkit::tokens::{Signer, key_set};
use serde_json::json;

use super::*;

fn read(set: &Value) -> Result<Vec<String>, String> {
    KeySet::read(set.to_string().as_bytes())
        .map(|set| set.keys.iter().map(|key| key.id.as_deref().unwrap_or("-").to_owned()).collect())
}

#[test]
fn a_key_that_cannot_be_used_is_not_in_the_way_of_others() {
    let good = Signer::new("ES256", "good").key();
    let but = |name: &str, value: Value| {
        let mut key = good.clone();
        key["kid"] = "bad".into();
        key[name] = value;
        key
    };
    let bad = [
        but("use", json!("enc")),
        but("key_ops", json!(["sign"])),
        but("alg", json!("RS256")),
        but("alg", json!("HS256")),
        but("alg", json!(1)),
        but("crv", json!("P-384")),
        but("crv", json!("secp256k1")),
        but("x", json!("AAAA")),
        but("y", good["x"].clone()),
        but("kty", json!("oct")),
        but("kty", json!("RSA")),
        but("kid", json!(7)),
        json!("key"),
    ];
    for bad in bad {
        assert_eq!(read(&json!({"keys": [bad, good]})), Ok(vec!["good".to_owned()]), "{bad}");
        assert!(read(&json!({"keys": [bad]})).is_err(), "{bad}");
    }
    assert_eq!(read(&json!({"keys": [but("key_ops", json!(["verify"]))]})), Ok(vec!["bad".to_owned()]));
    assert_eq!(read(&good), Ok(vec!["good".to_owned()]), "a single key");
}

#[test]
fn the_alg_of_a_key_is_the_only_one() {
    let signer = Signer::new("RS256", "k");
    let set = KeySet::read(key_set([&signer]).as_bytes()).unwrap();
    assert!(set.keys[0].verifier(Algorithm::Rs256).is_some());
    assert!(set.keys[0].verifier(Algorithm::Rs512).is_none());
    let mut any = signer.key();
    any.as_object_mut().unwrap().remove("alg");
    let set = KeySet::read(any.to_string().as_bytes()).unwrap();
    assert!(set.keys[0].verifier(Algorithm::Rs512).is_some());
    assert!(set.keys[0].verifier(Algorithm::Es256).is_none());
}

#[test]
fn what_is_no_key_set_says_so() {
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[],"keys":[]}"#, "<html>"] {
        assert!(KeySet::read(text.as_bytes()).is_err(), "{text}");
    }
    let short = json!({"kty": "RSA", "n": BASE64URL_NOPAD.encode(&[0xff; 128]), "e": "AQAB"});
    assert_eq!(
        read(&short),
        Err("none of its keys can be used: key 1: it has 1024 bits; 2048 to 8192 are taken".into())
    );
}

#[test]
fn a_point_by_which_anybody_can_sign_is_no_key() {
    for y in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ] {
        let x = BASE64URL_NOPAD.encode(&HEXLOWER.decode(y.as_bytes()).unwrap());
        let why = read(&json!({"kty": "OKP", "crv": "Ed25519", "x": x})).unwrap_err();
        assert!(why.contains("small order"), "{y}: {why}");
    }
}
