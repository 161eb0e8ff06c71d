//! An adversarial list: what is hidden, and what has to stay readable.

use std::borrow::Cow;

use super::*;

/// A JSON Web Token of RFC 7519.
const JWT: &str =
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UifQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

#[test]
fn headers_of_credentials_are_hidden_whatever_their_case() {
    for name in [
        "authorization",
        "Authorization",
        "PROXY-AUTHORIZATION",
        "cookie",
        "Set-Cookie",
        "x-api-key",
        "api-key",
        "X-Goog-Api-Key",
        "x-amz-security-token",
        "x-auth-token",
        "x-secret",
        "x-user-password",
        "X_API_KEY",
        "Ocp-Apim-Subscription-Key",
        "x-vault-token",
        "x-functions-key",
        "x-client-secret",
        "dpop",
        "x-csrf-token",
        "private-token",
        "x-goog-iap-jwt-assertion",
        "x-ms-access-key",
        "openai-api-key",
        "anthropic-api-key",
    ] {
        assert!(is_sensitive_header(name), "{name}");
        assert_eq!(header(name, "hunter2"), HIDDEN, "{name}");
    }
}

#[test]
fn other_headers_stay_and_credentials_in_them_go() {
    for name in ["accept", "user-agent", "x-request-id", "traceparent", "agent-capability", "max-tokens"] {
        assert!(!is_sensitive_header(name), "{name}");
        assert!(matches!(header(name, "plain value 1.0"), Cow::Borrowed("plain value 1.0")), "{name}");
    }
    assert_eq!(header("x-note", &format!("Bearer {JWT}")), "Bearer REDACTED");
    assert_eq!(header("x-note", "see sk-proj-Abc123Def456Ghi789"), "see REDACTED");
}

#[test]
fn values_of_parameters_of_credentials_are_hidden_and_names_stay() {
    for (from, to) in [
        ("key=AIzaSyA1", "key=REDACTED"),
        ("a=1&token=x&b=2", "a=1&token=REDACTED&b=2"),
        ("access_token=x;id=3", "access_token=REDACTED;id=3"),
        ("ACCESS_TOKEN=x", "ACCESS_TOKEN=REDACTED"),
        ("code=4/abc&state=q", "code=REDACTED&state=q"),
        (
            "sig=a&Signature=b&AWSAccessKeyId=c&X-Goog-Signature=d",
            "sig=REDACTED&Signature=REDACTED&AWSAccessKeyId=REDACTED&X-Goog-Signature=REDACTED",
        ),
        (
            "X-Amz-Signature=a&X-Amz-Credential=b&X-Amz-Security-Token=c",
            "X-Amz-Signature=REDACTED&X-Amz-Credential=REDACTED&X-Amz-Security-Token=REDACTED",
        ),
        ("user%5Bpassword%5D=x", "user%5Bpassword%5D=REDACTED"),
        ("pass%77ord=x", "pass%77ord=REDACTED"),
        ("apiKey=x&api-key=y&api_key=z", "apiKey=REDACTED&api-key=REDACTED&api_key=REDACTED"),
        ("q=sk-ant-api03-AbCdEf0123456789", "q=REDACTED"),
        ("q=Bearer%20abcdefgh", "q=REDACTED"),
        ("q=Bearer+abcdefghijkl", "q=REDACTED"),
        ("token==x=y", "token=REDACTED"),
        ("token", "token"),
        ("token=", "token="),
    ] {
        assert_eq!(query(from), to, "{from}");
    }
    for harmless in
        ["q=weather&limit=10", "max_tokens=100&page_token=3", "monkeys=2&keyboard=de", "", "&&==", "%zz=%"]
    {
        assert!(matches!(query(harmless), Cow::Borrowed(_)), "{harmless}");
    }
}

#[test]
fn paths_lose_what_looks_like_a_credential() {
    let with = |secret: &str| format!("/v1/{secret}/items");
    for secret in [
        JWT,
        "sk-proj-0123456789abcdef",
        "sk_live_0123456789abcdef",
        "ghp_0123456789abcdefghij0123456789abcdef",
        "github_pat_11ABCDEFG0123456789",
        "xoxb-123456789012-abcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "AIzaSyA-1234567890abcdefghijklmnopqrstu",
        "hf_ABCDEFabcdef123456",
        "glpat-ABCdef123456789",
    ] {
        assert_eq!(path(&with(secret)), with(HIDDEN), "{secret}");
        assert_eq!(value(&format!("failed: {secret}, twice")), format!("failed: {HIDDEN}, twice"));
    }
    assert_eq!(path("/login;token=abc/x"), "/login;token=REDACTED/x");
    assert_eq!(path("/bot123:secret/key=abc"), "/bot123:secret/key=REDACTED");
    assert_eq!(path("/fetch/https://anna:pw@h/x"), "/fetch/https://REDACTED:REDACTED@h/x");
    assert_eq!(path("/x/Bearer%20abcdefghi/y"), "/x/REDACTED/y");
    let readable = [
        "/",
        "*",
        "/v1/chat/completions",
        "/sk-learn-regression-model/predict",
        "/files/eyJ",
        "/token",
        "/users/0b8f2c1e-8f57-4a6e-9a7f-3f8d6f6b2f11",
        "/a//b/",
        "/ünï/%E4%BD%A0",
        "/search=now",
    ];
    for readable in readable {
        assert!(matches!(path(readable), Cow::Borrowed(same) if same == readable), "{readable}");
    }
}

#[test]
fn urls_lose_users_and_passwords() {
    for (from, to) in [
        ("https://anna:pw@example.com:8443/a?b=1", "https://REDACTED:REDACTED@example.com:8443/a?b=1"),
        ("https://anna@example.com/", "https://REDACTED:REDACTED@example.com/"),
        ("https://a@b@example.com", "https://REDACTED:REDACTED@example.com"),
        ("//u:p@h/x", "//REDACTED:REDACTED@h/x"),
        ("https://h/x#access_token=abc&n=1", "https://h/x#access_token=REDACTED&n=1"),
        ("/x?key=abc", "/x?key=REDACTED"),
        ("https://h?token=x", "https://h?token=REDACTED"),
        ("postgres://u:p@db/x?sslmode=off", "postgres://REDACTED:REDACTED@db/x?sslmode=off"),
    ] {
        assert_eq!(url(from), to, "{from}");
    }
    for same in [
        "https://example.com/a@b?c=d",
        "/a?b=c#d",
        "",
        "://",
        "https://",
        "h:80",
        "#",
        "?",
        "//",
        "https://h?mail=a@b",
    ] {
        assert!(matches!(url(same), Cow::Borrowed(_)), "{same}");
    }
}

#[test]
fn texts_lose_credentials_after_a_scheme_and_private_keys() {
    assert_eq!(value("authorization: Bearer abcdef0123"), "authorization: Bearer REDACTED");
    assert_eq!(value("said \"basic YW5uYTpwdw==\""), "said \"basic REDACTED==\"");
    assert_eq!(value("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END"), HIDDEN);
    assert_eq!(value("a basic idea of mine"), "a basic idea of mine");
}

#[test]
fn variables_of_credentials_are_not_shown() {
    for name in [
        "OPENAI_API_KEY",
        "DB_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "SSH_KEY",
        "MYSQL_PWD",
        "SENTRY_DSN",
    ] {
        assert!(!variable(name, "x"), "{name}");
    }
    assert!(!variable("HARMLESS", "sk-proj-0123456789abcdef"));
    assert!(variable("REGION", "eu-central-1"));
    assert!(variable("HOSTNAME", "agent-7"));
}

/// Whatever comes: no panic, nothing hidden twice, and a credential in the middle of it does not come through.
#[test]
fn random_text_never_lets_a_credential_through() {
    let mut rng = fastrand::Rng::with_seed(5);
    let parts = [
        "/", "?", "&", "=", "#", "@", ":", "//", "%", "%2F", "%zz", "a", "ü", "token", "Bearer ", ";",
        "\u{2028}", " ",
    ];
    for _ in 0..3000 {
        let junk = |rng: &mut fastrand::Rng| -> String {
            (0..rng.usize(..12)).filter_map(|_| rng.choice(parts)).collect()
        };
        let text = format!("{}/{JWT}/{}", junk(&mut rng), junk(&mut rng));
        for shown in [path(&text), query(&text), url(&text), value(&text)] {
            assert!(!shown.contains("dBjftJeZ4CVP"), "{text} -> {shown}");
        }
        let text = junk(&mut rng) + &junk(&mut rng);
        for kind in [path, query, url, value] {
            let once = kind(&text).into_owned();
            assert_eq!(kind(&once), once, "{text}");
        }
    }
}

#[test]
fn what_is_harmless_by_a_look_at_its_bytes_is_harmless_word_by_word() {
    let mut rng = fastrand::Rng::with_seed(5);
    let parts = [
        "a",
        "bearer",
        "Basic",
        "NEGOTIATE",
        "digest",
        " ",
        "/",
        ":",
        "=",
        "%20",
        "%",
        "sk-",
        "ghp_",
        "eyJ",
        ".",
        "ü",
        "Abc123def456",
        "abcdefghijkl",
        "-----BEGIN",
        "RSA",
        "PRIVATE KEY",
        "REDACTED",
        "default.svc:8080",
        "\t",
        "Xy9",
    ];
    let mut harmless = 0;
    for _ in 0..200_000 {
        let mut text = String::new();
        for _ in 0..rng.usize(1..7) {
            text.push_str(if rng.u8(..4) == 0 {
                PREFIXES[rng.usize(..PREFIXES.len())]
            } else {
                parts[rng.usize(..parts.len())]
            });
        }
        if !is_harmless(&text) {
            continue;
        }
        harmless += 1;
        let private = text.contains("-----BEGIN") && text.contains("PRIVATE KEY");
        assert!(!private && words(&text) == text && encoded(&text) == text, "{text:?}");
    }
    assert!(harmless > 20_000, "{harmless}");
    assert!(is_harmless("/v1/conversations/17/messages") && is_harmless("bench-server.default:8080"));
}
