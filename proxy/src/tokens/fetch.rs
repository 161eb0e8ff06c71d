//! Follows the issuers whose keys have to be fetched: at once, then every 20 minutes, and when a request brings a key that is not known.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use pilotfish_filters::tokens::KeySource;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::issuer::Issuer;
use super::keys::LARGEST;
use super::verify::object;
use crate::ask::{Question, ask};
use crate::server::Shared;

/// Between two looks (Istio's default, `PILOT_JWT_PUB_KEY_REFRESH_INTERVAL`).
const REFRESH: Duration = Duration::from_secs(20 * 60);

/// After the first failure in a row, and the longest after more of them.
const BACK_OFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Between the beginnings of two looks that requests ask for: at first, and while they bring nothing new. The longest is shorter than a
/// request's patience (5 s), so that a new key is always learned in time.
const AT_LEAST: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Follows for the life of the process.
pub async fn run(shared: Arc<Shared>) {
    let mut followed: Vec<(Arc<Issuer>, JoinHandle<()>)> = Vec::new();
    loop {
        shared.tokens.bell.notified().await;
        let wanted = shared.tokens.fetched();
        followed.retain(|(issuer, task)| {
            let stays = wanted.iter().any(|one| Arc::ptr_eq(one, issuer));
            if !stays {
                task.abort();
            }
            stays
        });
        for issuer in wanted {
            if !followed.iter().any(|(one, _)| Arc::ptr_eq(one, &issuer)) {
                let task = tokio::spawn(follow(shared.clone(), issuer.clone()));
                followed.push((issuer, task));
            }
        }
    }
}

async fn follow(shared: Arc<Shared>, issuer: Arc<Issuer>) {
    let (mut back_off, mut gap) = (BACK_OFF[0], AT_LEAST[0]);
    // A fleet that was started at once does not ask at once ever after.
    let mut rng = fastrand::Rng::new();
    loop {
        let began = Instant::now();
        let look = issuer.begin();
        let fetched = fetch(&shared, &issuer.source).await;
        let good = fetched.is_ok();
        let changed = issuer.end(look, fetched.as_deref().map_err(Clone::clone), shared.clock.now());
        let next = if good {
            back_off = BACK_OFF[0];
            REFRESH.mul_f64(0.9 + 0.1 * rng.f64())
        } else {
            let this = back_off;
            back_off = (back_off * 2).min(BACK_OFF[1]);
            this
        };
        let next = Instant::now() + next;
        loop {
            tokio::select! {
                biased;
                () = issuer.wanted() => {
                    let wider = if changed { AT_LEAST[0] } else { (gap * 2).min(AT_LEAST[1]) };
                    sleep_until(next.min(began + wider)).await;
                    // Those who asked while the last look was under way may have what they wanted.
                    if issuer.is_waited_for() {
                        gap = wider;
                        break;
                    }
                }
                () = sleep_until(next) => {
                    gap = AT_LEAST[0];
                    break;
                }
            }
        }
    }
}

/// The text of a key set.
async fn fetch(shared: &Arc<Shared>, source: &KeySource) -> Result<Bytes, String> {
    match source {
        KeySource::Inline(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        KeySource::Uri { uri, timeout } => get(shared, uri, *timeout).await,
        KeySource::Discovery { issuer, timeout } => {
            let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
            let document = get(shared, &place, *timeout).await?;
            let document = object(&document).ok_or_else(|| format!("{place} is not a JSON object"))?;
            // OpenID Connect Discovery 1.0, section 4.3.
            if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
                return Err(format!("{place} is not about this issuer"));
            }
            let uri = document.get("jwks_uri").and_then(Value::as_str);
            let uri = uri.filter(|uri| uri.starts_with("https://") || uri.starts_with("http://"));
            get(shared, uri.ok_or_else(|| format!("{place} has no `jwks_uri`"))?, *timeout).await
        }
    }
}

async fn get(shared: &Arc<Shared>, uri: &str, timeout: Duration) -> Result<Bytes, String> {
    let request = Request::builder()
        .method(Method::GET)
        .uri(uri)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .body(Bytes::new())
        .map_err(|_| "it is not a URI".to_owned())?;
    let usual_roots = shared.settings.issuer_ca.clone();
    let question = Question { usual_roots, ..Question::new(request, timeout, LARGEST) };
    let answer = ask(shared, question).await?;
    if answer.status() != StatusCode::OK {
        return Err(format!("it answers {}", answer.status().as_u16()));
    }
    Ok(answer.into_body())
}
