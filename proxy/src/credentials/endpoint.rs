//! What a token endpoint is asked, and what its answer means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderValue, Request, Response, header};
use pilotfish_config::model::{ClientProof, OAuthClient, Secret, TokenEndpoint};
use pilotfish_filters::credentials::{Credential, SubjectToken};
use pilotfish_filters::redact;
use serde_json::Value;
use zeroize::Zeroizing;

use super::assertion;
use super::file::{escape, read};
use crate::ask::{Question, ask};
use crate::server::Shared;

/// The longest answer.
const LONGEST: usize = 64 * 1024;
/// The longest token: with it a request's head is still one that servers take.
const LONGEST_TOKEN: usize = 16 * 1024;
/// A token whose life is not said (RFC 6749 section 5.1 leaves it to other means).
const USUAL_LIFE: Duration = Duration::from_secs(300);
/// A life is taken as at least this, so that no call asks again, and at most as this.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
/// As much as is told of what the endpoint says went wrong.
const MOST_SAID: usize = 200;

/// A new token.
pub(super) struct Token {
    pub text: Zeroizing<String>,
    pub life: Duration,
}

/// Asks for a token of the sidecar's own.
pub(super) fn client(
    shared: &Arc<Shared>,
    credential: &Arc<Credential>,
) -> impl Future<Output = Result<Token, String>> + Send + use<> {
    let (shared, credential) = (shared.clone(), credential.clone());
    async move {
        let Secret::Client(endpoint) = &credential.secret else { return Err("it is of another kind".into()) };
        let mut form = Form::of("client_credentials");
        form.add("audience", endpoint.audience.as_deref());
        form.add("resource", endpoint.resource.as_deref());
        obtain(&shared, &credential, endpoint, form).await
    }
}

/// Exchanges a token for another (RFC 8693).
pub(super) fn exchange(
    shared: &Arc<Shared>,
    credential: &Arc<Credential>,
    subject: Option<Arc<SubjectToken>>,
) -> impl Future<Output = Result<Token, String>> + Send + use<> {
    let (shared, credential) = (shared.clone(), credential.clone());
    async move {
        let Secret::Exchange(endpoint, exchange) = &credential.secret else {
            return Err("it is of another kind".into());
        };
        let mut form = Form::of("urn:ietf:params:oauth:grant-type:token-exchange");
        match (&exchange.subject_file, &subject) {
            (Some(file), _) => form.add_secret("subject_token", &read(&credential.name, file)?),
            (None, Some(subject)) => form.add_secret("subject_token", subject.expose()),
            (None, None) => return Err("there is no token to exchange".into()),
        }
        form.add("subject_token_type", Some(&exchange.subject_type));
        if let Some((file, kind)) = &exchange.actor {
            form.add_secret("actor_token", &read(&credential.name, file)?);
            form.add("actor_token_type", Some(kind));
        }
        form.add("audience", endpoint.audience.as_deref());
        form.add("resource", endpoint.resource.as_deref());
        form.add("requested_token_type", exchange.requested_type.as_deref());
        obtain(&shared, &credential, endpoint, form).await
    }
}

/// `application/x-www-form-urlencoded`, and what of it may never be told.
struct Form {
    text: Zeroizing<String>,
    secrets: Vec<Zeroizing<String>>,
}

impl Form {
    fn of(grant: &str) -> Form {
        let text = Zeroizing::new(format!("grant_type={}", &*escape(grant)));
        Form { text, secrets: Vec::new() }
    }

    fn add(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            for part in ["&", name, "=", &escape(value)] {
                self.text.push_str(part);
            }
        }
    }

    fn add_secret(&mut self, name: &str, value: &str) {
        self.add(name, Some(value));
        self.secrets.push(Zeroizing::new(value.to_owned()));
    }
}

async fn obtain(
    shared: &Arc<Shared>,
    credential: &Credential,
    endpoint: &TokenEndpoint,
    mut form: Form,
) -> Result<Token, String> {
    if !endpoint.scopes.is_empty() {
        form.add("scope", Some(&endpoint.scopes.join(" ")));
    }
    let mut request = Request::post(&*endpoint.url)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json");
    if let Some(OAuthClient { id, proof }) = &endpoint.client {
        match proof {
            ClientProof::Form(file) => {
                form.add("client_id", Some(id));
                form.add_secret("client_secret", &read(&credential.name, file)?);
            }
            ClientProof::Basic(file) => {
                let secret = read(&credential.name, file)?;
                // RFC 6749 section 2.3.1 wants both escaped first.
                let pair = Zeroizing::new(format!("{}:{}", &*escape(id), &*escape(&secret)));
                let basic = Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes())));
                let mut value = HeaderValue::from_str(&basic).map_err(|error| error.to_string())?;
                value.set_sensitive(true);
                request = request.header(header::AUTHORIZATION, value);
                form.secrets.push(secret);
            }
            ClientProof::Key { file, id: key_id } => {
                let now = shared.clock.epoch().nanos(shared.clock.now()) / 1_000_000_000;
                let signed = assertion::signed(file, key_id.as_deref(), id, &endpoint.url, now)?;
                form.add("client_id", Some(id));
                form.add("client_assertion_type", Some(assertion::TYPE));
                form.add_secret("client_assertion", &signed);
            }
        }
    }
    let body = Bytes::copy_from_slice(form.text.as_bytes());
    let request = request.body(body).map_err(|error| error.to_string())?;
    let question = Question {
        roots: endpoint.ca_certificates.as_deref().map(Into::into),
        secret: !credential.insecure,
        ..Question::new(request, endpoint.timeout, LONGEST)
    };
    let answer = ask(shared, question).await;
    let answer = answer.and_then(|answer| token(&answer, &form.secrets));
    answer.map_err(|why| format!("the token endpoint {}: {why}", endpoint.url))
}

/// What an answer means (RFC 6749 section 5, RFC 8693 section 2.2).
fn token(answer: &Response<Bytes>, secrets: &[Zeroizing<String>]) -> Result<Token, String> {
    let status = answer.status();
    let body: Option<Value> = serde_json::from_slice(answer.body()).ok();
    let text = |key: &str| body.as_ref().and_then(|body| body.get(key)?.as_str());
    if status.is_redirection() {
        return Err(format!("it answers {}, and redirects are not followed", status.as_u16()));
    }
    if !status.is_success() {
        let mut why = format!("it answers {}", status.as_u16());
        for (before, key) in [(": ", "error"), (", ", "error_description")] {
            if let Some(said) = text(key) {
                why.push_str(before);
                why.push_str(&quote(said, secrets));
            }
        }
        return Err(why);
    }
    let token = text("access_token").ok_or("its answer has no access_token")?;
    if token.is_empty() || token.len() > LONGEST_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("its access_token is none".into());
    }
    // RFC 8693 says `N_A` of tokens that are shown in another way.
    if let Some(kind) = text("token_type")
        && !["bearer", "n_a"].iter().any(|known| kind.eq_ignore_ascii_case(known))
    {
        return Err(format!("its tokens are of the type {}, not Bearer", quote(kind, secrets)));
    }
    let life = body.as_ref().and_then(|body| match body.get("expires_in")? {
        Value::Number(seconds) => seconds.as_f64(),
        // Some servers write it as a text.
        Value::String(seconds) => seconds.trim().parse().ok(),
        _ => None,
    });
    // A life of nothing, or less, is the shortest there is.
    let bounded = |seconds: f64| seconds.clamp(SHORTEST_LIFE.as_secs_f64(), LONGEST_LIFE.as_secs_f64());
    let life =
        life.filter(|seconds| !seconds.is_nan()).map(|seconds| Duration::from_secs_f64(bounded(seconds)));
    Ok(Token { text: Zeroizing::new(token.to_owned()), life: life.unwrap_or(USUAL_LIFE) })
}

/// What the endpoint says, for people: short, and without what was secret in the question.
fn quote(said: &str, secrets: &[Zeroizing<String>]) -> String {
    let plain: String = said.chars().filter(|c| !c.is_control()).take(MOST_SAID).collect();
    if secrets.iter().any(|secret| said.contains(&***secret) || said.contains(&**escape(secret))) {
        return redact::HIDDEN.to_owned();
    }
    redact::value(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<(String, u64), String> {
        let answer = Response::builder().status(status).body(Bytes::from(body.to_owned())).unwrap();
        let secrets = [Zeroizing::new("s3cr3t key".to_owned())];
        token(&answer, &secrets).map(|token| (token.text.to_string(), token.life.as_secs()))
    }

    #[test]
    fn answers_of_token_endpoints() {
        for (body, expected) in [
            (r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#, 3600),
            (r#"{"access_token":"t","token_type":"bearer","expires_in":"60"}"#, 60),
            (r#"{"access_token":"t","token_type":"N_A","expires_in":1.9}"#, 1),
            (r#"{"access_token":"t"}"#, 300),
            (r#"{"access_token":"t","expires_in":0}"#, 1),
            (r#"{"access_token":"t","expires_in":-7}"#, 1),
            (r#"{"access_token":"t","expires_in":1e300}"#, 86400),
            (r#"{"access_token":"t","expires_in":"NaN"}"#, 300),
            (r#"{"access_token":"t","expires_in":"soon"}"#, 300),
            (r#"{"access_token":"t","expires_in":9999999999}"#, 86400),
            (r#"{"access_token":"t","expires_in":null}"#, 300),
        ] {
            assert_eq!(answer(200, body), Ok(("t".to_owned(), expected)), "{body}");
        }
        for (status, body, expected) in [
            (200, "", "no access_token"),
            (200, "[]", "no access_token"),
            (200, r#"{"access_token":7}"#, "no access_token"),
            (200, r#"{"access_token":""}"#, "is none"),
            (200, r#"{"access_token":"a\r\nx-evil: 1"}"#, "is none"),
            (200, r#"{"access_token":"a b"}"#, "is none"),
            (200, r#"{"access_token":"t","token_type":"DPoP"}"#, "type DPoP, not Bearer"),
            (302, "", "it answers 302, and redirects are not followed"),
            (
                401,
                r#"{"error":"invalid_client","error_description":"no\u0007pe"}"#,
                "401: invalid_client, nope",
            ),
            (400, r#"{"error":"s3cr3t key"}"#, "400: REDACTED"),
            (400, r#"{"error":"x","error_description":"got s3cr3t%20key"}"#, "400: x, REDACTED"),
            (500, "<html>", "it answers 500"),
        ] {
            let why = answer(status, body).unwrap_err();
            assert!(why.ends_with(expected), "{why} / {expected}");
        }
        let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(LONGEST_TOKEN + 1));
        assert!(answer(200, &long).is_err());
        let said = format!(r#"{{"error":"{}"}}"#, "y ".repeat(9999));
        assert!(answer(400, &said).unwrap_err().len() < 300);
    }
}
