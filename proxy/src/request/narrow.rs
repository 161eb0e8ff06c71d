//! narrow: a list of what an agent offers (tools, resources and prompts of MCP, skills of an A2A card, models) has in it only what its
//! caller may use. For each entry the plan is asked what it would decide of the call that uses it; an external authorizer is not.
//!
//! A card that is signed is never rewritten: it is served as it is to whoever may use all of it, and refused to others.

mod cut;
mod events;
mod models;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::Method;
use pilotfish_filters::authz::{Asking, Who};
use pilotfish_filters::binding::{self, Path, Said};
use pilotfish_filters::call::{Call, Caller, Head, Protocol, Understood};
use pilotfish_filters::normalize::loosest;
use pilotfish_filters::plan::Plan;
use pilotfish_filters::verdict::{Deny, Reason};

use crate::http::{Downstream, Frame, Framing, RequestHead, ResponseHead, Sink, next_frame};
use crate::request::admit::Asked;
use crate::request::ctx::Ctx;
use crate::request::repeat::Sent;
use crate::request::respond::Failed;
use crate::worker::Worker;
use cut::{Ambiguous, Json, Place, With};
use events::Events;
pub use models::one as one_model;

/// Longest list that is read, bytes.
const LIMIT: usize = 4 * 1024 * 1024;

/// Headers of a request that make its answer something else than the whole list as plain text.
const PLAIN: [&str; 4] = ["accept-encoding", "range", "if-range", "te"];

/// Headers of an answer that are about its very bytes.
const BYTES: [&str; 6] = ["etag", "digest", "content-digest", "repr-digest", "content-md5", "accept-ranges"];

/// Where agents' cards are.
const CARDS: [&str; 2] = ["/.well-known/agent-card.json", "/.well-known/agent.json"];

/// Which list it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    /// Tools, resources, prompts: of the answer to a call.
    Mcp,
    /// The same, if what comes is a stream, on which answers to other calls come. Some agents send one to whoever asks by GET, whatever
    /// it says that it accepts.
    Stream,
    /// An agent's card; the result of a call, or the answer itself.
    Card,
    /// Models.
    Models,
}

/// A call whose answer has to be narrowed.
#[derive(Debug)]
pub struct Narrow {
    list: List,
    head: RequestHead,
    caller: Caller,
    remote_ip: Option<IpAddr>,
    destination: Option<SocketAddr>,
    sni: Option<Box<str>>,
    unix: u64,
    /// Where calls go, when a stream says so (MCP 2024-11-05).
    endpoint: Option<Box<str>>,
}

/// Whether an answer has to be narrowed; what the request must not ask for then is noted in `remove`.
pub fn due(plan: &Plan, asked: &Asked<'_>, who: &Who<'_>, remove: &mut Vec<Box<str>>) -> Option<Box<Narrow>> {
    if !plan.authz_reads_body() {
        return None;
    }
    let list = list(asked.head, asked.call)?;
    if list != List::Stream || asked.call.streaming {
        remove.extend(PLAIN.map(Box::from));
    }
    Some(Box::new(Narrow::new(list, asked, who)))
}

fn list(head: &RequestHead, call: &Call) -> Option<List> {
    match (call.protocol, call.rpc_method.as_deref()) {
        (
            Protocol::Mcp,
            Some("tools/list" | "resources/list" | "resources/templates/list" | "prompts/list"),
        ) => return Some(List::Mcp),
        (Protocol::A2a, Some("GetExtendedAgentCard" | "agent/getAuthenticatedExtendedCard")) => {
            return Some(List::Card);
        }
        _ if head.method != Method::GET || head.upgrade().is_some() => return None,
        _ => {}
    }
    match binding::read(head.method.as_str(), head.path()) {
        Path::Said(Said::Models) => return Some(List::Models),
        Path::Said(Said::A2a(method, _)) if method == "GetExtendedAgentCard" => return Some(List::Card),
        _ => {}
    }
    // As any obliging agent would read it.
    let loose = loosest(head.path());
    let readings = loose.iter().flat_map(|loose| loose.readings.iter().map(String::as_str));
    let is_card = std::iter::once(head.path()).chain(readings).any(|path| {
        let path = path.trim_end_matches('/').to_ascii_lowercase();
        CARDS.iter().any(|end| path.ends_with(end))
    });
    Some(if is_card { List::Card } else { List::Stream })
}

/// Why a list cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bad {
    /// It cannot be read, for this reason.
    Unreadable(&'static str),
    /// It is a signed card, and the caller may not use all of it.
    Signed,
}

impl From<Ambiguous> for Bad {
    fn from(_: Ambiguous) -> Self {
        Bad::Unreadable("it has a member twice")
    }
}

impl From<Bad> for Failed {
    fn from(bad: Bad) -> Self {
        Failed::Refused(match bad {
            Bad::Unreadable(why) => {
                let detail = format!(
                    "the agent's list has to be narrowed to what its caller may use, and cannot be: {why}"
                );
                Deny::with(Reason::ListUnreadable, detail)
            }
            Bad::Signed => {
                let detail = "the agent's card is signed, so nothing can be taken out of it, and the caller may not use all of its skills";
                Deny::with(Reason::AccessDenied, detail)
            }
        })
    }
}

/// Whether this answer is one that has a list in it.
pub fn concerns(narrow: &Narrow, head: &ResponseHead, framing: Framing) -> bool {
    let wanted = narrow.list != List::Stream || is_events(head);
    wanted && head.status.is_success() && !framing.is_empty()
}

fn is_events(head: &ResponseHead) -> bool {
    let kind = head.headers.get("content-type").unwrap_or_default();
    let kind = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    kind.eq_ignore_ascii_case(b"text/event-stream")
}

/// Passes on what the caller may see of an answer. Its head is not sent yet.
///
/// # Errors
/// `list-unreadable`, `access-denied`; one side broke.
pub async fn respond(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    mut narrow: Box<Narrow>,
    sent: Sent,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    let identity = |value: &[u8]| value.trim_ascii().eq_ignore_ascii_case(b"identity");
    if !sent.head.headers.get_all("content-encoding").all(identity) {
        return Err(Bad::Unreadable("it is compressed although nobody asked for that").into());
    }
    if is_events(&sent.head) {
        return stream(worker, ctx, &mut narrow, sent, down).await;
    }
    let Sent { mut head, mut dialed, mut upload } = sent;
    let mut body = Vec::new();
    while let Some(frame) = next_frame(down, &mut dialed.upstream, &mut upload, body.len() as u64).await? {
        let Frame::Data(data) = frame else { continue };
        if body.len() + data.len() > LIMIT {
            return Err(Bad::Unreadable("it is longer than 4 MiB").into());
        }
        body.extend_from_slice(&data);
    }
    if let Some(narrowed) = narrow.json(ctx, &body)? {
        body = narrowed;
        changed(&mut head);
    }
    ctx.status = Some(head.status.as_u16());
    ctx.sent = upload.bytes;
    ctx.received = body.len() as u64;
    down.release();
    down.send(&head, body.into()).await?;
    dialed.keep(worker);
    Ok(())
}

/// Passes on a stream, event by event.
async fn stream(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    narrow: &mut Narrow,
    sent: Sent,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    let Sent { mut head, mut dialed, mut upload } = sent;
    changed(&mut head);
    ctx.status = Some(head.status.as_u16());
    down.respond(&head, Framing::Streaming);
    down.release();
    let mut events = Events::default();
    let mut read = 0;
    flush(down).await?;
    while let Some(frame) = next_frame(down, &mut dialed.upstream, &mut upload, read).await? {
        ctx.sent = upload.bytes;
        let Frame::Data(data) = frame else { continue };
        read += data.len() as u64;
        events.push(&data).map_err(|_| Bad::Unreadable("an event is longer than 4 MiB"))?;
        while let Some(event) = events.take() {
            let event = narrow.event(ctx, event)?;
            ctx.received += event.len() as u64;
            ready(down).await?;
            down.push(event);
        }
        flush(down).await?;
    }
    // What is no whole event is none: clients drop it too.
    let rest = events.rest();
    if !rest.is_empty() {
        let rest = narrow.event(ctx, rest)?;
        ready(down).await?;
        down.push(rest);
    }
    down.finish(None);
    flush(down).await?;
    dialed.keep(worker);
    Ok(())
}

async fn ready(down: &mut Downstream<'_>) -> Result<(), Failed> {
    Ok(std::future::poll_fn(|cx| down.poll_ready(cx)).await?)
}

async fn flush(down: &mut Downstream<'_>) -> Result<(), Failed> {
    Ok(std::future::poll_fn(|cx| down.poll_flush(cx)).await?)
}

fn changed(head: &mut ResponseHead) {
    for name in BYTES.into_iter().chain(["content-length"]) {
        head.headers.remove(name);
    }
}

impl Narrow {
    fn new(list: List, asked: &Asked<'_>, who: &Who<'_>) -> Narrow {
        Narrow {
            list,
            head: asked.head.clone(),
            caller: *asked.caller,
            remote_ip: who.remote_ip,
            destination: who.destination,
            sni: who.sni.map(Box::from),
            unix: who.unix,
            endpoint: None,
        }
    }

    /// An event of a stream, narrowed if it has a list in it.
    fn event(&mut self, ctx: &Ctx<'_>, event: Vec<u8>) -> Result<Bytes, Bad> {
        let read = events::read(&event).ok_or(Bad::Unreadable("an event is not UTF-8"))?;
        let Some(data) = read.data else { return Ok(event.into()) };
        if read.name == Some("endpoint") {
            self.endpoint = Some(path_of(&data).into());
        }
        // Streams carry much else, and not all of it is JSON.
        let narrowed =
            if Json::new(data.as_bytes()).is_some() { self.json(ctx, data.as_bytes())? } else { None };
        Ok(match narrowed {
            Some(data) => events::with_data(&event, &data).into(),
            None => event.into(),
        })
    }

    /// The list without what the caller may not use; `None`: it stays as it is.
    fn json(&self, ctx: &Ctx<'_>, text: &[u8]) -> Result<Option<Vec<u8>>, Bad> {
        let json = Json::new(text).ok_or(Bad::Unreadable("it is not JSON"))?;
        let whole = json.whole();
        match self.list {
            List::Mcp | List::Stream => self.mcp(ctx, &json, &whole),
            List::Card => match json.member(&whole, "result")? {
                Some(card) => self.card(ctx, &json, &card, true),
                None => self.card(ctx, &json, &whole, false),
            },
            List::Models => self.models(ctx, &json, &whole),
        }
    }

    fn mcp(&self, ctx: &Ctx<'_>, json: &Json<'_>, whole: &Place) -> Result<Option<Vec<u8>>, Bad> {
        const LISTS: [(&str, &str, &str); 4] = [
            ("tools", "name", "tools/call"),
            ("resources", "uri", "resources/read"),
            ("resourceTemplates", "uriTemplate", "resources/read"),
            ("prompts", "name", "prompts/get"),
        ];
        let path = self.endpoint.as_deref().unwrap_or(self.head.path());
        let mut cuts = Cuts::default();
        // An agent may send several answers at once (2025-03-26).
        for message in json.elements(whole).unwrap_or_else(|| vec![whole.clone()]) {
            // An error, or what is no answer, has no result.
            let Some(result) = json.member(&message, "result")? else { continue };
            for (list, key, method) in LISTS {
                let Some(array) = json.member(&result, list)? else { continue };
                cuts.cut(json, &array, &[key], |name| {
                    let call = Call {
                        protocol: Protocol::Mcp,
                        rpc_method: Some(method.into()),
                        tool: Some(name.into()),
                        body: Understood::Whole,
                        ..Call::default()
                    };
                    self.allows(ctx, &call, path)
                })?;
            }
        }
        Ok(cuts.done(json))
    }

    fn card(
        &self,
        ctx: &Ctx<'_>,
        json: &Json<'_>,
        card: &Place,
        by_call: bool,
    ) -> Result<Option<Vec<u8>>, Bad> {
        let Some(skills) = json.member(card, "skills")? else { return Ok(None) };
        let signed = json.member(card, "signatures")?;
        let signed = signed.and_then(|all| json.elements(&all)).is_some_and(|all| !all.is_empty());
        let path = if by_call { self.head.path().into() } else { path_of_agent(json, card)? };
        let mut cuts = Cuts::default();
        cuts.cut(json, &skills, &["id"], |skill| {
            ["SendMessage", "SendStreamingMessage"].iter().any(|method| {
                let call = Call {
                    protocol: Protocol::A2a,
                    rpc_method: Some((*method).into()),
                    skill: Some(skill.into()),
                    body: Understood::Whole,
                    ..Call::default()
                };
                self.allows(ctx, &call, &path)
            })
        })?;
        match cuts.done(json) {
            Some(_) if signed => Err(Bad::Signed),
            done => Ok(done),
        }
    }

    /// What the plan would decide of a call by the same caller.
    fn allows(&self, ctx: &Ctx<'_>, call: &Call, path: &str) -> bool {
        self.refused(ctx, call, path).is_none()
    }

    /// The policy by which it would refuse it.
    fn refused(&self, ctx: &Ctx<'_>, call: &Call, path: &str) -> Option<String> {
        let rules = ctx.mesh.and_then(|peer| peer.rules(ctx.snapshot));
        let who = Who {
            principal: ctx.mesh.map(|peer| &peer.principal),
            remote_ip: self.remote_ip,
            destination: self.destination,
            arrived: Some(ctx.local.ip()),
            sni: self.sni.as_deref(),
            claims: ctx.proven.claims.as_ref(),
            chain: ctx.proven.chain.as_deref(),
            metadata: ctx.due.metadata.as_deref(),
            unix: self.unix,
            rules: rules.as_deref(),
        };
        let head = Would { head: &self.head, path, call };
        let asking = Asking { head: &head, call, caller: &self.caller, who: &who };
        let judgement = ctx.snapshot.plan.authorize(&asking);
        judgement.deny.map(|_| judgement.by.into_owned())
    }
}

/// Where messages to the agent go, as its card says.
fn path_of_agent(json: &Json<'_>, card: &Place) -> Result<Box<str>, Bad> {
    let mut url = json.member(card, "url")?;
    if url.is_none()
        && let Some(interfaces) = json.member(card, "supportedInterfaces")?
        && let Some(first) = json.elements(&interfaces).and_then(|all| all.first().cloned())
    {
        url = json.member(&first, "url")?;
    }
    let url = url.and_then(|url| json.text(&url));
    Ok(url.map_or_else(|| "/".into(), |url| path_of(&url).into()))
}

/// The path of a URL or of a reference.
fn path_of(url: &str) -> &str {
    let rest = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => url,
    };
    rest.split(['?', '#']).next().filter(|path| path.starts_with('/')).unwrap_or("/")
}

/// What stays of some arrays.
#[derive(Debug, Default)]
struct Cuts {
    places: Vec<(Place, With)>,
    any: bool,
}

impl Cuts {
    /// Leaves in an array those elements whose name, the first of `keys` that they have, may stay. One without says nothing that could be
    /// used, and goes.
    fn cut(
        &mut self,
        json: &Json<'_>,
        array: &Place,
        keys: &[&str],
        stays: impl Fn(&str) -> bool,
    ) -> Result<(), Bad> {
        let Some(elements) = json.elements(array) else { return Ok(()) };
        let mut kept = Vec::with_capacity(elements.len());
        for element in elements {
            if name(json, &element, keys)?.and_then(|name| json.text(&name)).is_some_and(|name| stays(&name))
            {
                kept.push(element);
            } else {
                self.any = true;
            }
        }
        self.places.push((array.clone(), With::Elements(kept)));
        Ok(())
    }

    fn done(mut self, json: &Json<'_>) -> Option<Vec<u8>> {
        self.places.sort_by_key(|(place, _)| place.start);
        self.any.then(|| json.with(&self.places))
    }
}

fn name(json: &Json<'_>, element: &Place, keys: &[&str]) -> Result<Option<Place>, Ambiguous> {
    for key in keys {
        if let Some(name) = json.member(element, key)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The head of a call that the caller might send.
struct Would<'a> {
    head: &'a RequestHead,
    path: &'a str,
    call: &'a Call,
}

impl Would<'_> {
    /// What the list's own call says of itself, this one would say of itself.
    fn own(&self, name: &str) -> Option<Option<&str>> {
        match name {
            "mcp-method" if self.head.headers.contains(name) => Some(self.call.rpc_method.as_deref()),
            "mcp-name" => {
                Some(self.call.tool.as_deref().filter(|_| self.head.headers.contains("mcp-method")))
            }
            _ => None,
        }
    }
}

impl Head for Would<'_> {
    fn method(&self) -> &str {
        "POST"
    }

    fn scheme(&self) -> &str {
        self.head.scheme()
    }

    fn authority(&self) -> &str {
        self.head.authority()
    }

    fn path(&self) -> &str {
        self.path
    }

    fn query(&self) -> Option<&str> {
        None
    }

    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match self.own(name) {
            Some(own) => own.map(|own| Cow::Borrowed(own.as_bytes())),
            None => Head::header(self.head, name),
        }
    }

    fn each_header(&self, name: &str, take: &mut dyn FnMut(&[u8])) {
        match self.own(name) {
            Some(own) => own.into_iter().for_each(|own| take(own.as_bytes())),
            None => Head::each_header(self.head, name, take),
        }
    }
}
