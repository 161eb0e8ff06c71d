//! Tokens that are none, and callers who try.

use data_encoding::BASE64URL_NOPAD;
use pilotfish_testkit::origin::Origin;
use pilotfish_testkit::tokens::{Signer, key_set, now, unsigned, with_secret};
use pilotfish_testkit::{H1, h1};
use serde_json::json;

use super::{call, claims, inline, policy, refused};
use crate::support::{metric, sidecar};

#[tokio::test]
async fn nobody_gets_in_with_a_token_that_is_not_good() {
    let agent = Origin::plain().await;
    let elsewhere = Origin::plain().await;
    let (rsa, ec) = (Signer::new("RS256", "rsa"), Signer::new("ES256", "ec"));
    let mallory = Signer::new("ES256", "ec");
    let p384 = Signer::new("ES384", "ec");
    let sidecar = sidecar().yaml("a.yaml", inline([&rsa, &ec], "")).app(agent.addr()).start();
    let hour = 3600;
    let with = |members| ec.token(&claims(members));
    let good = with(json!({}));
    assert_eq!(call(&sidecar, &good).await.status(), 200);
    assert_eq!(call(&sidecar, &rsa.token(&claims(json!({})))).await.status(), 200);
    let mut without = claims(json!({}));
    without.as_object_mut().unwrap().remove("aud");
    let payload = claims(json!({})).to_string();
    let twice = payload.replacen('{', r#"{"iss":"https://evil.test","#, 1);
    let header = |alg: &str, kid: &str| json!({"alg": alg, "kid": kid}).to_string();
    let mut elsewhere_header = json!({"alg": "ES256", "kid": "ec", "jwk": mallory.key()});
    for name in ["jku", "x5u"] {
        elsewhere_header[name] = format!("http://127.0.0.1:{}/keys", elsewhere.port()).into();
    }
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let attacks = [
        ("expired", with(json!({"exp": now() - hour})), "expired"),
        ("from tomorrow", with(json!({"nbf": now() + 24 * hour})), "not valid yet"),
        ("issued tomorrow", with(json!({"iat": now() + 24 * hour})), "not valid yet"),
        ("without audience", ec.token(&without), "audience"),
        ("for another audience", with(json!({"aud": ["them"]})), "audience"),
        ("of another issuer", with(json!({"iss": "https://evil.test"})), "issuer"),
        ("of two issuers", with(json!({"iss": ["https://issuer.test", "https://evil.test"]})), "two ways"),
        ("with iss twice", ec.signed(&header("ES256", "ec"), &twice), "two ways"),
        ("with keys elsewhere", mallory.signed(&elsewhere_header.to_string(), &payload), "signature"),
        ("alg none", format!("{}.", unsigned(&header("none", "ec"), &payload)), "algorithm"),
        ("alg none with a signature", ec.signed(&header("nOnE", "ec"), &payload), "algorithm"),
        (
            "the public key as a secret",
            with_secret(&rsa.public_bytes(), &header("HS256", "rsa"), &payload),
            "algorithm",
        ),
        (
            "a secret under RS256",
            with_secret(&rsa.public_bytes(), &header("RS256", "rsa"), &payload),
            "signature",
        ),
        ("ES256 with the RSA key's name", ec.signed(&header("ES256", "rsa"), &payload), "algorithm"),
        ("of a wrong curve", p384.signed(&header("ES384", "ec"), &payload), "algorithm"),
        ("of a wrong curve under ES256", p384.signed(&header("ES256", "ec"), &payload), "signature"),
        ("with a wrong kid", ec.signed(&header("ES256", "other"), &payload), "does not publish"),
        (
            "with a kid of a file",
            ec.signed(&header("ES256", "../../etc/passwd"), &payload),
            "does not publish",
        ),
        ("of somebody else", mallory.token(&claims(json!({}))), "signature"),
        (
            "with crit",
            ec.signed(r#"{"alg":"ES256","kid":"ec","crit":["b64"],"b64":false}"#, &payload),
            "crit",
        ),
        ("with b64", ec.signed(r#"{"alg":"ES256","kid":"ec","b64":false}"#, &payload), "crit"),
        (
            "with alg twice",
            ec.signed(r#"{"alg":"ES256","kid":"ec","\u0061lg":"none"}"#, &payload),
            "two ways",
        ),
        (
            "with a member twice inside",
            ec.signed(&header("ES256", "ec"), &payload.replacen('{', r#"{"x":{"a":1,"\u0061":2},"#, 1)),
            "two ways",
        ),
        (
            "with a deep payload",
            ec.signed(
                &header("ES256", "ec"),
                &payload.replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(3000), "]".repeat(3000)), 1),
            ),
            "two ways",
        ),
        ("with a signature of zeros", format!("{signed}.{}", "A".repeat(86)), "signature"),
        ("with a signature of 63 bytes", format!("{signed}.{}", "A".repeat(84)), "signature"),
        (
            "with another last bit",
            format!("{}{}", &good[..good.len() - 1], if good.ends_with('A') { 'B' } else { 'A' }),
            "",
        ),
        ("exp as a text", with(json!({"exp": "9999999999"})), "two ways"),
        (
            "exp beyond numbers",
            ec.signed(&header("ES256", "ec"), &payload.replacen('{', r#"{"nbf":1e400,"#, 1)),
            "two ways",
        ),
        ("aud of numbers", with(json!({"aud": ["a", 1]})), "two ways"),
        ("without a signature", format!("{signed}."), "signature"),
        (
            "with another payload",
            format!("{}.{signature}", unsigned(&header("ES256", "ec"), &twice)),
            "two ways",
        ),
        ("20 KiB long", with(json!({"x": "a".repeat(15_000)})), "longer than"),
        ("with a comma", format!("{good},"), "several"),
        ("no token at all", "xyz".into(), "not a signed"),
        ("with a space", good.replacen('.', " .", 1), "not a signed"),
        ("with padding", format!("{good}="), "not a signed"),
        ("percent-encoded", good.replacen('.', "%2E", 1), "not a signed"),
        ("encrypted", format!("{good}.AAAA.AAAA"), "not a signed"),
    ];
    for (what, token, why) in &attacks {
        // The second time it is known, and just as bad.
        for _ in 0..2 {
            let detail = refused(&call(&sidecar, token).await);
            assert!(detail.contains(why), "{what}: {detail}");
            assert!(!detail.contains(&token[..token.len().min(24)]), "{what}: {detail}");
        }
    }
    assert_eq!(agent.requests().len(), 2);
    assert!(elsewhere.connections().is_empty(), "a token's own addresses are not asked");
    // 64 KiB do not even get as far.
    let answer = call(&sidecar, &"a".repeat(64 * 1024)).await;
    assert_eq!((answer.status(), answer.reason().as_str()), (431, "headers-too-large"));
    let good = metric(&sidecar, "pilotfish_tokens_total{result=\"good\"}").await;
    let checks = metric(&sidecar, "pilotfish_token_checks_total").await;
    assert_eq!(good, 2);
    assert!(checks <= 2 + attacks.len() as u64, "the same bad token is not checked twice: {checks}");
}

#[tokio::test]
async fn a_key_by_which_anybody_can_sign_is_none() {
    let (agent, signer) = (Origin::plain().await, Signer::new("EdDSA", "good"));
    // The neutral point of Ed25519: with it as the key, and as the signature beside a zero, everything is signed.
    let neutral = |bytes: usize| {
        let mut point = vec![0; bytes];
        point[0] = 1;
        BASE64URL_NOPAD.encode(&point)
    };
    let weak = json!({"kty": "OKP", "crv": "Ed25519", "kid": "weak", "x": neutral(32)});
    let set = json!({"keys": [weak, signer.key()]});
    let rule = policy(&format!("issuer: https://issuer.test\naudiences: [us]\njwks: '{set}'"));
    let sidecar = sidecar().yaml("a.yaml", rule).app(agent.addr()).start();
    assert_eq!(call(&sidecar, &signer.token(&claims(json!({})))).await.status(), 200);
    for header in [json!({"alg": "EdDSA", "kid": "weak"}), json!({"alg": "EdDSA"})] {
        let forged = unsigned(&header.to_string(), &claims(json!({"sub": "root"})).to_string());
        refused(&call(&sidecar, &format!("{forged}.{}", neutral(64))).await);
    }
    assert_eq!(agent.requests().len(), 1);
}

#[tokio::test]
async fn the_clocks_of_issuers_may_be_off_by_a_minute() {
    let (agent, signer) = (Origin::plain().await, Signer::new("EdDSA", "k1"));
    let sidecar = sidecar().yaml("a.yaml", inline([&signer], "")).app(agent.addr()).start();
    // Far enough from the minute that a slow machine changes nothing.
    for (members, status) in [
        (json!({"exp": now() - 20}), 200),
        (json!({"exp": now() - 61}), 401),
        (json!({"nbf": now() + 59, "iat": now() + 59}), 200),
        (json!({"nbf": now() + 600}), 401),
        (json!({"exp": now() as f64 + 0.5}), 200),
    ] {
        assert_eq!(
            call(&sidecar, &signer.token(&claims(members.clone()))).await.status(),
            status,
            "{members}"
        );
    }
}

#[tokio::test]
async fn it_has_to_be_clear_who_calls() {
    let (agent, signer) = (Origin::plain().await, Signer::new("EdDSA", "k1"));
    let more = "fromHeaders: [{name: authorization, prefix: 'Bearer '}, {name: x-jwt}]\nfromParams: [t]\nfromCookies: [t]";
    let sidecar = sidecar().yaml("a.yaml", inline([&signer], more)).app(agent.addr()).start();
    let one = signer.token(&claims(json!({})));
    let two = signer.token(&claims(json!({"sub": "bob"})));
    let bearer = |token: &str| format!("authorization: Bearer {token}");
    let cases: [(&str, Vec<String>); 6] = [
        ("/", vec![bearer(&one), bearer(&two)]),
        ("/", vec![bearer(&one), format!("x-jwt: {two}")]),
        ("/", vec![bearer(&one), format!("cookie: t={two}")]),
        ("/", vec![format!("cookie: t={one}; t={two}")]),
        ("/", vec!["authorization: Basic YTpi".into(), bearer(&one)]),
        ("/?t=abc.def.ghi", vec![bearer(&one)]),
    ];
    for (target, headers) in cases {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = h1::get(sidecar.inbound, "tester", target, &headers).await.unwrap();
        assert!(refused(&answer).contains("several"), "{headers:?}");
    }
    // What some agents read as a token is one here, and none of these is good.
    for (target, header) in [
        ("/", "authorization: Bearer\ta.b.c"),
        ("/", "authorization: bearer   a.b.c"),
        ("/", "authorization: Bearer=a.b.c"),
        ("/", "authorization: Bearer\u{a0}a.b.c"),
        ("/?%74=a.b.c", "x-a: b"),
        ("/?x=1&%74=a.b.c", "x-a: b"),
    ] {
        let answer = h1::get(sidecar.inbound, "tester", target, &[header]).await.unwrap();
        assert_eq!(answer.status(), 401, "{target} {header}: {}", answer.text());
    }
    assert!(agent.requests().is_empty());
    // A header that looks like the one of a token, or like one that only a rule writes, is not for the agent's eyes.
    let answer = h1::get(sidecar.inbound, "tester", "/", &["X_Jwt: a.b.c", "bearer: x"]).await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let got = agent.requests().pop().unwrap();
    assert_eq!((got.header("x_jwt"), got.header("bearer").as_deref()), (None, Some("x")));
    let bearer = format!("authorization: Bearer\t{one}");
    assert_eq!(
        h1::get(sidecar.inbound, "tester", &format!("/?%74={one}"), &[&bearer]).await.unwrap().status(),
        200
    );
    let got = agent.requests().pop().unwrap();
    assert_eq!((got.target(), got.header("authorization")), ("/", None));
}

#[tokio::test]
async fn an_issuer_speaks_only_for_itself() {
    let agent = Origin::plain().await;
    let (ours, theirs) = (Signer::new("ES256", "k"), Signer::new("ES256", "k"));
    let rule = |issuer: &str, signer: &Signer, header: &str| {
        policy(&format!("issuer: {issuer}\njwks: '{}'\nfromHeaders: [{{name: {header}}}]", key_set([signer])))
    };
    let yaml = rule("https://ours.test", &ours, "x-ours")
        + &rule("https://theirs.test", &theirs, "x-theirs").replace("name: users", "name: more");
    let sidecar = sidecar().yaml("a.yaml", yaml).app(agent.addr()).start();
    let token = |signer: &Signer, issuer: &str| signer.token(&claims(json!({"iss": issuer})));
    for (header, token, status) in [
        ("x-ours", token(&ours, "https://ours.test"), 200),
        ("x-theirs", token(&theirs, "https://theirs.test"), 200),
        ("x-ours", token(&theirs, "https://ours.test"), 401),
        ("x-theirs", token(&theirs, "https://ours.test"), 401),
        ("x-theirs", token(&ours, "https://ours.test"), 401),
    ] {
        let answer = h1::get(sidecar.inbound, "tester", "/", &[&format!("{header}: {token}")]).await.unwrap();
        assert_eq!(answer.status(), status, "{header}");
    }
}

#[tokio::test]
async fn new_rules_hold_for_tokens_that_were_known() {
    let (agent, signer) = (Origin::plain().await, Signer::new("EdDSA", "k1"));
    let yaml = inline([&signer], "");
    let sidecar = sidecar().yaml("a.yaml", &yaml).app(agent.addr()).start();
    let bearer = format!("authorization: Bearer {}", signer.token(&claims(json!({}))));
    let mut client = H1::connect(sidecar.inbound).await;
    assert_eq!(client.get("tester", "/", &[&bearer]).await.unwrap().status(), 200);
    let other = Signer::new("EdDSA", "k1");
    for yaml in [yaml.replace("audiences: [us]", "audiences: [them]"), inline([&other], "")] {
        sidecar.rewrite("a.yaml", &yaml);
        for turn in 0.. {
            assert!(turn < 1000, "{:?}", sidecar.stderr());
            if client.get("tester", "/", &[&bearer]).await.unwrap().status() == 401 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
