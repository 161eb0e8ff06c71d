//! authenticate: whose token does the call bring, and is it valid? For inbound calls, by the RequestAuthentications of the agent.
//!
//! A call without a token goes on, unless a rule wants one; one whose token is not valid never does.

use std::sync::Arc;

use pilotfish_filters::authz::{Chain, Claims};
use pilotfish_filters::credentials::SubjectToken;
use pilotfish_filters::delegation::Delegated;
use pilotfish_filters::tokens::{Found, Place, TokenRules, Unclear, after, is_parameter};
use pilotfish_filters::verdict::{Deny, Reason};
use tokio::time::{Instant, timeout_at};

use crate::credentials::subject;
use crate::http::RequestHead;
use crate::http::headers::alike;
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::snapshot::Snapshot;
use crate::tokens::cache::Known;
use crate::tokens::verify::{Refusal, Verified, parse};
use crate::worker::Worker;

/// What is proved of who is behind a call, besides the peer's certificate.
#[derive(Debug, Default)]
pub struct Proven {
    /// authenticate: what its token says.
    pub claims: Option<Arc<Claims>>,
    /// authenticate: the token itself, when the agent's calls exchange it for others.
    pub token: Option<Arc<SubjectToken>>,
    /// delegation: for whom the caller acts.
    pub chain: Option<Arc<Chain>>,
    /// delegation: for whom the agent acts while it serves the call.
    pub delegated: Option<Arc<Delegated>>,
}

/// Verifies the token, if there is one, and does with the head what its rule says.
///
/// # Errors
/// `unauthenticated`: a token that is not valid, or none where one is required.
pub async fn authenticate(
    worker: &Worker,
    snapshot: &Snapshot,
    ctx: &mut Ctx<'_>,
    head: &mut RequestHead,
) -> Result<(), Deny> {
    let rules = snapshot.plan.tokens();
    if ctx.direction == Direction::Outbound || rules.is_empty() {
        return Ok(());
    }
    // On the heap, as whatever is rare here: the future of every call is as large as its largest branch.
    let shown = match rules.is_required() {
        false => one(worker, snapshot, head).await,
        true => Box::pin(wanted(worker, snapshot, head)).await,
    };
    let shown = shown.map_err(|why| refuse(worker, why))?;
    let all = || shown.iter().chain(shown.iter().flat_map(|shown| &shown.more)).map(|shown| &*shown.verified);
    rewrite(rules, all, head);
    if let Some(shown) = shown {
        ctx.proven.claims = Some(shown.verified.claims.clone());
        ctx.proven.token = shown.token;
    }
    Ok(())
}

/// A token that a request shows.
struct Shown {
    verified: Arc<Verified>,
    /// The token itself, when the agent's calls exchange it for others.
    token: Option<Arc<SubjectToken>>,
    /// What rules that want a token of their own were shown.
    more: Vec<Shown>,
}

impl Shown {
    async fn look(worker: &Worker, snapshot: &Snapshot, found: &Found<'_>) -> Result<Shown, Refusal> {
        let verified = verify(worker, snapshot, found).await?;
        let token = snapshot.plan.credentials().exchanges().then(|| subject(&found.token));
        Ok(Shown { verified, token, more: Vec::new() })
    }
}

/// The request's token, if it has one.
async fn one(worker: &Worker, snapshot: &Snapshot, head: &RequestHead) -> Result<Option<Shown>, Refusal> {
    match snapshot.plan.tokens().find(head).map_err(unclear)? {
        None => Ok(None),
        Some(found) => Shown::look(worker, snapshot, &found).await.map(Some),
    }
}

/// The tokens that rules want, and whatever else is where rules look; each has to be good. The first rule's says who calls.
async fn wanted(worker: &Worker, snapshot: &Snapshot, head: &RequestHead) -> Result<Option<Shown>, Refusal> {
    let rules = snapshot.plan.tokens();
    let mut wanting: Vec<usize> = (0..rules.rules().iter().filter(|rule| rule.required).count()).collect();
    let mut all: Vec<Shown> = Vec::new();
    for found in rules.find_all(head).map_err(unclear)? {
        let shown = Shown::look(worker, snapshot, &found).await?;
        let own = &shown.verified;
        let looks =
            |number: usize| rules.rules().get(number).is_some_and(|rule| rules.looks_at(rule, &found));
        wanting.retain(|number| *number != own.rule && !(own.also.contains(number) && looks(*number)));
        all.push(shown);
    }
    if !wanting.is_empty() {
        return Err(Refusal::Missing);
    }
    all.sort_by_key(|own| own.verified.rule);
    let more = all.split_off(all.len().min(1));
    Ok(all.pop().map(|first| Shown { more, ..first }))
}

/// What the agent gets of the tokens: `all` are those that are good, the one that says who calls first.
pub fn rewrite<'s, A>(rules: &TokenRules, all: impl Fn() -> A, head: &mut RequestHead)
where
    A: DoubleEndedIterator<Item = &'s Verified>,
{
    // Whatever a caller says in these is not from a rule. To many agents `_` in a header's name is a `-`.
    if !rules.written().is_empty() {
        head.headers.retain(|own, _| !rules.written().iter().any(|name| alike(own, name.as_bytes())));
    }
    if all().next().is_none() {
        return;
    }
    let rule = |verified: &Verified| rules.rules().get(verified.rule);
    let forwards =
        |place: &Place| all().filter_map(rule).any(|rule| rule.forward && rule.places.contains(place));
    for place in rules.places().iter().filter(|place| !forwards(place)) {
        take_out(place, head);
    }
    // What two of them write is the first one's.
    for (name, value) in all().rev().flat_map(|verified| &verified.headers) {
        head.headers.set(name, value.as_bytes());
    }
}

fn unclear(why: Unclear) -> Refusal {
    match why {
        Unclear::Several => Refusal::Several,
        Unclear::TooLong => Refusal::TooLong,
        Unclear::Malformed => Refusal::Malformed,
    }
}

/// RFC 6750, section 3.
fn refuse(worker: &Worker, why: Refusal) -> Deny {
    worker.metrics.tokens.refused(why);
    let realm = &worker.shared.settings.agent;
    let challenge = match why {
        Refusal::Missing => format!("Bearer realm=\"{realm}\""),
        _ => format!(
            "Bearer realm=\"{realm}\", error=\"invalid_token\", error_description=\"{}\"",
            why.sentence()
        ),
    };
    Deny::with(Reason::Unauthenticated, why.sentence()).and_header("www-authenticate", challenge)
}

async fn verify(worker: &Worker, snapshot: &Snapshot, found: &Found<'_>) -> Result<Arc<Verified>, Refusal> {
    let clock = worker.shared.clock;
    let now = clock.now();
    let known = {
        let mut cache = worker.tokens.borrow_mut();
        cache.settle(snapshot.version, snapshot.plan.tokens().rules(), worker.shared.tokens.generation());
        cache.get(&found.token, now)
    };
    let rules = snapshot.plan.tokens();
    let is_here = |verified: &Verified| {
        rules.rules().get(verified.rule).is_some_and(|rule| rules.looks_at(rule, found))
    };
    let verified = match known {
        // Of a rule that looks elsewhere it is unknown here.
        Some(Known::Good(verified)) if is_here(&verified) => verified,
        Some(Known::Bad(why)) => return Err(why),
        // On the heap: it is rare, and the future of every call is as large as its largest branch.
        _ => Box::pin(look(worker, snapshot, found)).await?,
    };
    verified.at((clock.epoch().nanos(clock.now()) / 1_000_000_000) as i64)?;
    worker.metrics.tokens.good.add(1);
    Ok(verified)
}

/// A token that was not seen before. Waits for its issuer's keys when they are not here, as long as one look at them takes.
async fn look(worker: &Worker, snapshot: &Snapshot, found: &Found<'_>) -> Result<Arc<Verified>, Refusal> {
    let rules = snapshot.plan.tokens();
    let at = |number: usize| rules.rules().get(number).is_some_and(|rule| rules.looks_at(rule, found));
    let (mut waiting, mut last) = (None, false);
    let (result, generation) = loop {
        let generation = worker.shared.tokens.generation();
        let judged = parse(&found.token)
            .map_err(|why| (why, None))
            .and_then(|parsed| snapshot.issuers.judge(rules, &parsed, at));
        let (why, rule) = match judged {
            Ok(verified) => break (Ok(Arc::new(verified)), generation),
            Err(why) => why,
        };
        let refused = (Err(why), generation);
        let Some(issuer) = rule.and_then(|rule| snapshot.issuers.of(rule)).filter(|_| !last) else {
            break refused;
        };
        if waiting.is_none() {
            waiting = issuer.wait().map(|one| (Instant::now() + issuer.patience(), one));
        }
        let Some((deadline, waiting)) = &mut waiting else { break refused };
        match timeout_at(*deadline, waiting.look()).await {
            // The look that this request asked for has ended: once more with what it brought.
            Ok(more) => last = !more,
            Err(_) => break refused,
        }
    };
    let known = match &result {
        Ok(verified) => Known::Good(verified.clone()),
        Err(why) => Known::Bad(*why),
    };
    worker.metrics.tokens.looked_at.add(1);
    // What is bad here may be good at another place, for a rule that looks there.
    if result.is_ok() || rules.is_same_everywhere(found) {
        worker.tokens.borrow_mut().put(&found.token, known, generation, worker.shared.clock.now());
    }
    result
}

/// Takes the token out of a place where a rule looks.
fn take_out(place: &Place, head: &mut RequestHead) {
    match place {
        Place::Header(name, prefix) => head.headers.retain(|own, value| {
            !own.eq_ignore_ascii_case(name.as_bytes()) || after(value, prefix).is_none()
        }),
        Place::Parameter(name) => without_parameter(head, name),
        Place::Cookie(name) => without_cookie(head, name),
    }
}

fn without_parameter(head: &mut RequestHead, name: &str) {
    let is = |pair: &&str| is_parameter(pair.split_once('=').map_or(*pair, |(own, _)| own), name);
    let Some(query) = head.query().filter(|query| query.split('&').any(|pair| is(&pair))) else { return };
    let rest: Vec<&str> = query.split('&').filter(|pair| !is(pair)).collect();
    let path = head.path();
    let target = if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
    head.set_path_and_query(&target);
}

fn without_cookie(head: &mut RequestHead, name: &str) {
    let is = |pair: &&[u8]| pair.trim_ascii().split(|byte| *byte == b'=').next() == Some(name.as_bytes());
    let Some(all) = head.headers.joined("cookie") else { return };
    if !all.split(|byte| *byte == b';').any(|pair| is(&pair)) {
        return;
    }
    let rest: Vec<&[u8]> =
        all.split(|byte| *byte == b';').filter(|pair| !is(pair)).map(<[u8]>::trim_ascii).collect();
    let rest = rest.join(&b"; "[..]);
    if rest.is_empty() {
        head.headers.remove("cookie");
    } else {
        head.headers.set("cookie", &rest);
    }
}
