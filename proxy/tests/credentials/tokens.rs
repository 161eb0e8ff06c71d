//! Tokens of the sidecar's own (client credentials), and tokens exchanged for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use pilotfish_testkit::origin::{Step, ok, send};
use pilotfish_testkit::{H1, Origin};

use super::{PATIENCE, Safe, credential, get, said, state, until};
use crate::support::{service, wait_metric};

/// A token endpoint that numbers its tokens; they live so many seconds.
async fn endpoint(life: u32) -> (Origin, Arc<AtomicBool>) {
    let (count, well) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(true)));
    let is_well = well.clone();
    let origin = Origin::start(move |_, _| {
        if !is_well.load(SeqCst) {
            return answer(500, "{}");
        }
        let number = count.fetch_add(1, SeqCst) + 1;
        ok(format!(r#"{{"access_token":"t0ken-{number}-x","token_type":"Bearer","expires_in":{life}}}"#))
    });
    (origin.await, well)
}

fn answer(status: u16, body: &str) -> Vec<Step> {
    vec![send(format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n\r\n{body}", body.len()))]
}

/// A client of this endpoint, for `api.test`.
fn client(idp: &Origin, secret: &str, more: &str) -> String {
    let spec = format!(
        "oauth2: {{ tokenUrl: \"http://{}/token\", clientId: \"me:1\", clientSecretFile: {secret}{more} }}",
        idp.addr()
    );
    credential("api", "api.test", &spec)
}

#[tokio::test]
async fn one_token_serves_many_calls() {
    let mut safe = Safe::new();
    let secret = safe.put("secret", "cl1ent s3cret");
    let ((idp, _), api) = (endpoint(3600).await, Origin::plain().await);
    let more = ", scopes: [read, \"write:all\"], audience: \"https://api.test/\"";
    let sidecar =
        safe.builder(service("api.test", api.port()) + &client(&idp, &secret, more)).workers(2).start();
    assert_eq!(state(&sidecar).await["state"], "not needed yet");
    assert_eq!(idp.requests().len(), 0, "nobody asked for a token yet");
    let calls = (0..40).map(|_| get(&sidecar, "api.test", "/", &["authorization: agents"]));
    assert_eq!(statuses(calls.collect()).await, [200; 40]);
    assert_eq!(idp.requests().len(), 1);
    let asked = &idp.requests()[0];
    assert_eq!(
        String::from_utf8_lossy(&asked.body),
        "grant_type=client_credentials&audience=https%3A%2F%2Fapi.test%2F&scope=read%20write%3Aall"
    );
    let basic = data_encoding::BASE64.encode(b"me%3A1:cl1ent%20s3cret");
    assert_eq!(asked.header("authorization"), Some(format!("Basic {basic}")));
    assert_eq!(asked.header("content-type").as_deref(), Some("application/x-www-form-urlencoded"));
    for seen in api.requests() {
        assert_eq!(seen.header("authorization").as_deref(), Some("Bearer t0ken-1-x"));
    }
    let state = state(&sidecar).await;
    assert_eq!((&state["state"], &state["tokens"]), (&"ok".into(), &1.into()), "{state}");
    safe.secrets.extend(["t0ken-1-x".into(), basic]);
    safe.is_tight(&sidecar).await;
}

#[tokio::test]
async fn a_token_is_renewed_while_calls_go_on() {
    let mut safe = Safe::new();
    let secret = safe.put("secret", "cl1ent-s3cret");
    let ((idp, _), api) = (endpoint(2).await, Origin::plain().await);
    let sidecar = safe.start(service("api.test", api.port()) + &client(&idp, &secret, ""));
    let began = Instant::now();
    // On a machine that stood still meanwhile it may be a later one.
    let number =
        |token: String| token.strip_prefix("Bearer t0ken-")?.strip_suffix("-x")?.parse::<usize>().ok();
    let third = || api.requests().iter().any(|seen| seen.header("authorization").and_then(number) >= Some(3));
    while !third() {
        assert_eq!(get(&sidecar, "api.test", "/", &[]).await.status(), 200);
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // No token was asked for sooner than it was needed.
    let took = began.elapsed();
    assert!(took > Duration::from_millis(2 * 1600), "{took:?}");
    let most = 2 + (took.as_millis() / 1600) as usize;
    assert!(idp.requests().len() <= most, "{} in {took:?}", idp.requests().len());
    safe.is_tight(&sidecar).await;
}

/// Drives them all at once; their statuses.
async fn statuses(all: Vec<impl Future<Output = pilotfish_testkit::h1::Answer>>) -> Vec<u16> {
    let mut running: Vec<_> = all.into_iter().map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|cx| {
        let mut left = false;
        for (one, status) in &mut running {
            if status.is_none() {
                match one.as_mut().poll(cx) {
                    std::task::Poll::Ready(answer) => *status = Some(answer.status()),
                    std::task::Poll::Pending => left = true,
                }
            }
        }
        if left { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, status)| status).collect()
}

#[tokio::test]
async fn an_outage_of_the_endpoint_is_waited_out_with_the_token_that_is_there() {
    let mut safe = Safe::new();
    let secret = safe.put("secret", "cl1ent-s3cret");
    let ((idp, well), api) = (endpoint(8).await, Origin::plain().await);
    let sidecar = safe.start(service("api.test", api.port()) + &client(&idp, &secret, ", authStyle: body"));
    let began = Instant::now();
    assert_eq!(get(&sidecar, "api.test", "/", &[]).await.status(), 200);
    let body = String::from_utf8_lossy(&idp.requests()[0].body).into_owned();
    assert_eq!(body, "grant_type=client_credentials&client_id=me%3A1&client_secret=cl1ent-s3cret");
    well.store(false, SeqCst);
    let mut statuses = Vec::new();
    while statuses.last() != Some(&503) {
        statuses.push(get(&sidecar, "api.test", "/", &[]).await.status());
        assert!(began.elapsed() < PATIENCE, "{statuses:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It was to be renewed after 6.4 s, and is good until 7.2 s.
    assert!(began.elapsed() > Duration::from_secs(7), "{:?}", began.elapsed());
    assert_eq!(statuses.iter().position(|status| *status != 200), Some(statuses.len() - 1), "{statuses:?}");
    let answer = get(&sidecar, "api.test", "/", &["authorization: agents"]).await;
    assert_eq!((answer.status(), &*answer.reason()), (503, "credential-unavailable"));
    let text = answer.text();
    assert!(text.contains("default/api") && text.contains("/token: it answers 500"), "{text}");
    // Many calls do not make many questions.
    let (asked, began) = (idp.requests().len(), Instant::now());
    for _ in 0..100 {
        get(&sidecar, "api.test", "/", &[]).await;
    }
    let most = asked + 3 + began.elapsed().as_secs() as usize;
    assert!(idp.requests().len() <= most, "{} after {asked}", idp.requests().len());
    well.store(true, SeqCst);
    until(&sidecar, "api.test", |answer| answer.status() == 200).await;
    said(&sidecar, "a credential is there again").await;
    assert!(
        api.requests().iter().all(|seen| seen.header("authorization").unwrap().starts_with("Bearer t0ken-"))
    );
    safe.is_tight(&sidecar).await;
}

#[tokio::test]
async fn bad_answers_of_the_endpoint_are_503_with_a_word_of_why() {
    let mut safe = Safe::new();
    let secret = safe.put("secret", "cl1ent-s3cret");
    let huge = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(70_000));
    for (steps, says) in [
        (
            answer(401, r#"{"error":"invalid_client","error_description":"no such client"}"#),
            "it answers 401: invalid_client, no such client",
        ),
        (
            answer(400, r#"{"error":"bad","error_description":"the secret cl1ent-s3cret is wrong"}"#),
            "it answers 400: bad, REDACTED",
        ),
        (vec![Step::Hang], "no answer within 300ms"),
        (vec![send("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{"), Step::Hang], "no answer within 300ms"),
        (answer(200, &huge), "longer than 65536 bytes"),
        (answer(200, "<html>login</html>"), "no access_token"),
        (answer(200, r#"{"access_token":"a\r\nhost: evil"}"#), "access_token is none"),
        (answer(200, r#"{"access_token":"a","token_type":"mac"}"#), "of the type mac, not Bearer"),
        (
            vec![send("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")],
            "redirects are not followed",
        ),
        (vec![Step::Reset], "the token endpoint"),
    ] {
        let (idp, api) = (Origin::start(move |_, _| steps.clone()).await, Origin::plain().await);
        let timeout = if says.contains("300ms") { ", timeout: 300ms" } else { "" };
        let sidecar = safe.start(service("api.test", api.port()) + &client(&idp, &secret, timeout));
        let answer = get(&sidecar, "api.test", "/", &["authorization: agents"]).await;
        assert_eq!((answer.status(), &*answer.reason()), (503, "credential-unavailable"), "{says}");
        assert!(answer.text().contains(says), "{says}: {}", answer.text());
        assert!(!answer.text().contains("cl1ent"), "{}", answer.text());
        assert_eq!(api.requests().len(), 0, "{says}");
        let state = state(&sidecar).await;
        assert_eq!(state["state"], "failing");
        assert!(state["last_error"].as_str().unwrap().contains(says), "{state}");
        safe.is_tight(&sidecar).await;
    }
}

#[tokio::test]
async fn a_token_that_the_host_refuses_is_obtained_anew_once() {
    let mut safe = Safe::new();
    let secret = safe.put("secret", "cl1ent-s3cret");
    let ((idp, _), api) = (
        endpoint(3600).await,
        Origin::start(|seen, _| {
            let first = seen.header("authorization").as_deref() == Some("Bearer t0ken-1-x");
            if first || seen.target() == "/never" { answer(401, "no") } else { ok("yes") }
        })
        .await,
    );
    let sidecar = safe.start(service("api.test", api.port()) + &client(&idp, &secret, ""));
    let mut client = H1::connect(sidecar.outbound).await;
    // It is the agent's call to repeat.
    assert_eq!(client.get("api.test", "/", &[]).await.unwrap().status(), 401);
    assert_eq!((api.requests().len(), idp.requests().len()), (1, 1));
    assert_eq!(client.get("api.test", "/", &[]).await.unwrap().status(), 200);
    assert_eq!(idp.requests().len(), 2);
    // A host that refuses all of them does not make the endpoint busy.
    for _ in 0..20 {
        assert_eq!(client.get("api.test", "/never", &[]).await.unwrap().status(), 401);
    }
    assert!(idp.requests().len() <= 3, "{}", idp.requests().len());
    let obtained = "pilotfish_credential_tokens_total{credential=\"default/api\",result=\"obtained\"}";
    wait_metric(&sidecar, obtained, idp.requests().len() as u64).await;
}

#[tokio::test]
async fn a_document_that_stays_keeps_its_token() {
    let mut safe = Safe::new();
    let secret = safe.put("secret", "cl1ent-s3cret");
    let ((idp, _), api) = (endpoint(3600).await, Origin::plain().await);
    let yaml = service("api.test", api.port()) + &client(&idp, &secret, "");
    let sidecar = safe.start(yaml.as_str());
    assert_eq!(get(&sidecar, "api.test", "/", &[]).await.status(), 200);
    sidecar.rewrite("b.yaml", &service("more.test", api.port()));
    until(&sidecar, "more.test", |answer| answer.status() == 200).await;
    assert_eq!(get(&sidecar, "api.test", "/", &[]).await.status(), 200);
    assert_eq!(idp.requests().len(), 1);
    sidecar.rewrite("a.yaml", &yaml.replace("clientId", "scopes: [more], clientId"));
    until(&sidecar, "api.test", |_| idp.requests().len() == 2).await;
    // Without it nothing is shown.
    sidecar.rewrite("a.yaml", &service("api.test", api.port()));
    until(&sidecar, "api.test", |_| api.requests().pop().unwrap().header("authorization").is_none()).await;
}

#[tokio::test]
async fn tokens_of_files_are_exchanged() {
    let mut safe = Safe::new();
    let (subject, actor) = (safe.put("subject", "subj3ct.t0ken"), safe.put("actor", "act0r.t0ken"));
    let secret = safe.put("secret", "cl1ent-s3cret");
    let ((idp, _), api) = (endpoint(3600).await, Origin::plain().await);
    let spec = format!(
        "exchange:\n  tokenUrl: \"http://{}/exchange\"\n  subjectTokenFile: {subject}\n  actorTokenFile: {actor}\n  \
         audience: api\n  resource: \"https://api.test/\"\n  scopes: [read]\n  clientId: me\n  clientSecretFile: {secret}\n  \
         requestedTokenType: urn:ietf:params:oauth:token-type:jwt",
        idp.addr()
    );
    let sidecar = safe.start(service("api.test", api.port()) + &credential("api", "api.test", &spec));
    for _ in 0..3 {
        assert_eq!(get(&sidecar, "api.test", "/", &[]).await.status(), 200);
    }
    assert_eq!(idp.requests().len(), 1);
    assert_eq!(
        String::from_utf8_lossy(&idp.requests()[0].body),
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=subj3ct.t0ken\
         &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&actor_token=act0r.t0ken\
         &actor_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&audience=api&resource=https%3A%2F%2Fapi.test%2F\
         &requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&scope=read"
    );
    assert_eq!(api.requests()[2].header("authorization").as_deref(), Some("Bearer t0ken-1-x"));
    safe.is_tight(&sidecar).await;
}

#[tokio::test]
async fn a_client_proves_itself_by_a_token_that_it_signs_with_the_key_of_now() {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
    };
    use data_encoding::BASE64URL_NOPAD;
    let mut safe = Safe::new();
    let pem = || {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let der = data_encoding::BASE64.encode(pair.to_pkcs8v1().unwrap().as_ref());
        (pair, format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----"))
    };
    let ((first, text), (second, newer)) = (pem(), pem());
    let file = safe.put("key", &text);
    let ((idp, _), api) = (endpoint(1).await, Origin::plain().await);
    let url = format!("http://{}/token", idp.addr());
    let spec = format!(
        "oauth2: {{ tokenUrl: \"{url}\", clientId: me, privateKeyFile: {file}, keyId: k1, resource: \"https://api.test/\" }}"
    );
    let sidecar = safe.start(service("api.test", api.port()) + &credential("api", "api.test", &spec));
    for (number, key) in [first, second].into_iter().enumerate() {
        if number == 1 {
            safe.put("key", &newer);
        }
        let (asked, began) = (idp.requests().len(), Instant::now());
        while idp.requests().len() == asked {
            assert_eq!(get(&sidecar, "api.test", "/", &[]).await.status(), 200);
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let body = String::from_utf8_lossy(&idp.requests()[asked].body).into_owned();
        let form = "grant_type=client_credentials&resource=https%3A%2F%2Fapi.test%2F&client_id=me&client_assertion_type=\
                    urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=";
        let token = body.strip_prefix(form).unwrap_or_else(|| panic!("{body}")).to_owned();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key().as_ref().to_vec());
        key.verify(message.as_bytes(), &signature).unwrap();
        let claims = BASE64URL_NOPAD.decode(message.split('.').nth(1).unwrap().as_bytes()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!((&claims["aud"], &claims["iss"]), (&url.clone().into(), &"me".into()));
        assert_eq!(idp.requests()[asked].header("authorization"), None);
        safe.secrets.push(token);
    }
    safe.is_tight(&sidecar).await;
}
