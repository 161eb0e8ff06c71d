//! The page, and reads of the API for it: on a loopback port, for a session that `pilotfish ui` opened.
//!
//! Every program of this machine reaches the port, and every page in the user's browser can send requests to it. So
//! each request has to name the port as its host (else it came by a rebound DNS name), must not come from another
//! origin, and needs the session; a write needs an administrator's token besides.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONTENT_SECURITY_POLICY, COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;

use super::answer::{Answer, Denied, typed};
use super::auth::Caller;
use super::connection::Activity;
use super::route::{self, Needs, Query};
use super::sessions::SESSION;
use super::{Control, handle, jaeger};
use crate::log;

const HTML: &str = include_str!("page/page.html");
const CLOSED: &str = include_str!("page/closed.html");
const STYLE: &str = include_str!("page/page.css");
const ICON: &str = include_str!("page/icon.svg");

/// The scripts by their paths; `main.js` imports the others.
const SCRIPTS: &[(&str, &str)] = &[
    ("/js/access.js", include_str!("page/js/access.js")),
    ("/js/agents.js", include_str!("page/js/agents.js")),
    ("/js/alerts.js", include_str!("page/js/alerts.js")),
    ("/js/api.js", include_str!("page/js/api.js")),
    ("/js/documents.js", include_str!("page/js/documents.js")),
    ("/js/dom.js", include_str!("page/js/dom.js")),
    ("/js/graph.js", include_str!("page/js/graph.js")),
    ("/js/layout.js", include_str!("page/js/layout.js")),
    ("/js/live.js", include_str!("page/js/live.js")),
    ("/js/main.js", include_str!("page/js/main.js")),
    ("/js/placement.js", include_str!("page/js/placement.js")),
    ("/js/sidecars.js", include_str!("page/js/sidecars.js")),
    ("/js/spans.js", include_str!("page/js/spans.js")),
    ("/js/theme.js", include_str!("page/js/theme.js")),
    ("/js/traces.js", include_str!("page/js/traces.js")),
    ("/js/waterfall.js", include_str!("page/js/waterfall.js")),
    ("/js/words.js", include_str!("page/js/words.js")),
];

/// Scripts and styles are files of their own, nothing comes from elsewhere, nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Carries the session's key.
const KEY: &str = "x-pilotfish-session";

/// The page's own address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    address: SocketAddr,
}

impl Page {
    /// The page at a listener's address.
    pub(super) fn new(address: SocketAddr) -> Page {
        Page { address }
    }

    /// The URL that opens a session once.
    pub(super) fn link(&self, code: &str) -> String {
        format!("http://{}/login?code={code}", self.address)
    }

    /// Answers one request.
    pub(super) async fn answer(
        self,
        control: Arc<Control>,
        from: SocketAddr,
        request: Request<Incoming>,
        activity: Arc<Activity>,
    ) -> Answer {
        let (head, body) = request.into_parts();
        let answered = match self.is_own(&head) {
            Ok(()) if head.uri.path().starts_with("/v1/") => {
                self.api(&control, from, head, body, activity).await
            }
            Ok(()) if jaeger::is(head.uri.path()) => self.jaeger(&control, &head).await,
            Ok(()) => self.file(&control, &head),
            Err(denied) => {
                log::warn!("the page refused a request that is not its own", from = from);
                Err(denied)
            }
        };
        secured(answered.unwrap_or_else(Denied::answer))
    }

    /// Whether a request was meant for this port and comes from its own page, or from none.
    fn is_own(&self, head: &Parts) -> Result<(), Denied> {
        let host = only(&head.headers, &HOST).unwrap_or_default();
        let target = head.uri.authority().is_none_or(|authority| authority.as_str() == host);
        if !target || !self.hosts().iter().any(|own| own == host) {
            let expected = format!("the host must be {}; use the link of `pilotfish ui`", self.address);
            return Err(Denied::new(StatusCode::MISDIRECTED_REQUEST, expected));
        }
        let foreign = || Denied::forbidden("requests of other pages are not answered");
        match head.headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
            None | Some(b"same-origin" | b"none") => {}
            Some(_) => return Err(foreign()),
        }
        let origin = head.headers.get_all(ORIGIN).iter().map(HeaderValue::as_bytes);
        let own = format!("http://{host}");
        if origin.into_iter().any(|origin| origin != own.as_bytes()) {
            return Err(foreign());
        }
        Ok(())
    }

    /// The names under which a browser reaches this port.
    fn hosts(&self) -> [String; 2] {
        [self.address.to_string(), format!("localhost:{}", self.address.port())]
    }

    /// A cookie belongs to a host, whatever the port: its name holds the port, so that two control planes do not meet.
    fn cookie_name(&self) -> String {
        format!("pilotfish_{}", self.address.port())
    }

    fn cookie<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let name = self.cookie_name();
        let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    fn file(&self, control: &Control, head: &Parts) -> Result<Answer, Denied> {
        if head.method != Method::GET && head.method != Method::HEAD {
            return Err(Denied::method("GET, HEAD"));
        }
        let open =
            self.cookie(&head.headers).is_some_and(|cookie| control.sessions.has(cookie, Instant::now()));
        let path = head.uri.path();
        let script = SCRIPTS.iter().find(|(own, _)| *own == path).map(|(_, text)| *text);
        match path {
            "/icon.svg" => Ok(typed(StatusCode::OK, "image/svg+xml", ICON)),
            "/page.css" => Ok(typed(StatusCode::OK, "text/css; charset=utf-8", STYLE)),
            "/login" if head.method == Method::GET => self.login(control, head),
            "/" if open => Ok(typed(StatusCode::OK, "text/html; charset=utf-8", HTML)),
            "/" | "/login" => Ok(closed()),
            _ => match script {
                Some(script) if open => Ok(typed(StatusCode::OK, "text/javascript; charset=utf-8", script)),
                Some(_) => Ok(closed()),
                None => Err(Denied::not_found("there is only the page, at /")),
            },
        }
    }

    /// Spends the link's code; a session's cookie and key go to the browser.
    fn login(&self, control: &Control, head: &Parts) -> Result<Answer, Denied> {
        let query = Query::read(head.uri.query(), &["code"])?;
        let opened = control.sessions.open(query.get("code").unwrap_or_default(), Instant::now());
        let failed = |why: String| Denied::new(StatusCode::INTERNAL_SERVER_ERROR, why);
        let Some(opened) = opened.map_err(|failure| failed(failure.to_string()))? else {
            return Ok(closed());
        };
        let (name, seconds) = (self.cookie_name(), SESSION.as_secs());
        let cookie =
            format!("{name}={}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}", opened.cookie);
        let mut answer = typed(StatusCode::SEE_OTHER, "text/plain", "");
        let value = |text: String| HeaderValue::try_from(text).map_err(|error| failed(error.to_string()));
        answer.headers_mut().insert(SET_COOKIE, value(cookie)?);
        answer.headers_mut().insert(LOCATION, value(format!("/#{}", opened.key))?);
        log::info!("a session of the page was opened");
        Ok(answer)
    }

    /// Whether a request belongs to an open session.
    fn session(&self, control: &Control, head: &Parts) -> Result<(), Denied> {
        let key = head.headers.get(KEY).and_then(|key| key.to_str().ok()).unwrap_or_default();
        let cookie = self.cookie(&head.headers);
        if cookie.is_some_and(|cookie| control.sessions.admits(cookie, key, Instant::now())) {
            return Ok(());
        }
        Err(Denied::new(StatusCode::UNAUTHORIZED, "no session: run `pilotfish ui` and open its link"))
    }

    /// Traces as Jaeger shows them.
    async fn jaeger(&self, control: &Control, head: &Parts) -> Result<Answer, Denied> {
        self.session(control, head)?;
        Ok(jaeger::ask(control, head).await)
    }

    async fn api(
        &self,
        control: &Arc<Control>,
        from: SocketAddr,
        head: Parts,
        body: Incoming,
        activity: Arc<Activity>,
    ) -> Result<Answer, Denied> {
        let (route, segments) = route::find(&head.method, head.uri.path())?;
        self.session(control, &head)?;
        if route.needs != Needs::Administrator {
            return Err(Denied::forbidden("sidecars use the TLS listener"));
        }
        let caller = if head.method == Method::GET {
            Caller::Administrator("page".into())
        } else if head.headers.contains_key(ORIGIN) {
            control.by_token(from, &head.headers).await?
        } else {
            return Err(Denied::forbidden("a write needs an Origin header, which browsers send"));
        };
        let admitted = handle::Admitted { route, segments, caller, from: Some(from), head };
        handle::perform(control, admitted, body, activity).await
    }
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let (first, second) = (all.next()?, all.next());
    if second.is_some() { None } else { first.to_str().ok() }
}

/// What a browser without a session sees.
fn closed() -> Answer {
    typed(StatusCode::UNAUTHORIZED, "text/html; charset=utf-8", CLOSED)
}

fn secured(mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    headers.insert("x-frame-options", HeaderValue::from_static("DENY"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    answer
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_script_of_the_folder_is_served_and_every_import_is_one_of_them() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/page/js");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| format!("/js/{}", entry.unwrap().file_name().to_str().unwrap()))
            .collect();
        let served: BTreeSet<String> = SCRIPTS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(files, served);
        for (path, text) in SCRIPTS {
            for (_, rest) in
                text.match_indices(" from \"./").map(|(at, found)| text.split_at(at + found.len()))
            {
                let name = rest.split('"').next().unwrap();
                assert!(served.contains(&format!("/js/{name}")), "{path} imports {name}");
            }
        }
    }

    /// What comes from requests is set as text; nothing parses it.
    #[test]
    fn no_script_makes_markup_or_code_of_text() {
        let never = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
            "new Function",
        ];
        for (path, text) in SCRIPTS {
            let found: Vec<_> = never.iter().filter(|word| text.contains(**word)).collect();
            assert!(found.is_empty(), "{path}: {found:?}");
        }
    }
}
