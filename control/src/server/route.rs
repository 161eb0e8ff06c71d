//! Which request is for what: one row for each request of the API, with who may make it and how long it may be.

use http::Method;

use super::answer::Denied;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    Version,
    NewToken,
    Apply,
    Diff,
    Resources,
    Delete,
    History,
    Rollback,
    Status,
    Wait,
    Agents,
    Explain,
    Revoke,
    Readmit,
    Trust,
    AddRoot,
    RemoveRoot,
    Backup,
    NewAdministrator,
    Ui,
    Join,
    Renew,
    Stream,
    /// Spans of a sidecar, OTLP over HTTP.
    Spans,
    /// Traces that a search finds.
    Traces,
    /// One trace, as OTLP JSON.
    Trace,
    /// What a trace or a workflow says: critical path, bottlenecks, recommendations.
    Analysis,
    /// What changed between two times.
    Changes,
    /// Live calls.
    Tap,
    /// A call's decision record, from whichever sidecars remember it.
    Why,
    /// Alerts.
    Alerts,
    /// Who calls whom, how often, how well.
    Graph,
    /// Nodes, replicas, agents: what is where.
    Placement,
    /// Why an agent's replicas are where they are.
    Placed,
    /// How many replicas there should be.
    Scale,
    /// Whether replicas may come to a node.
    Mark,
    /// Make room by moving.
    Rebalance,
    /// The last lines of a replica's output.
    Tail,
    /// A node's stream.
    NodeStream,
    /// Records of the audit log.
    Audit,
    /// Whether the audit log is whole.
    AuditVerify,
    /// Which control planes keep audit logs.
    AuditHolders,
    /// Whether a call would be allowed, and by which rule.
    AuthzExplain,
    /// Who may call whom.
    AuthzMatrix,
    /// What policies say and what of it is enforced.
    PolicyReport,
    /// Agents that are held to something.
    Actions,
    /// Hold an agent, or let it go.
    Act,
}

/// Who may make a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// An administrator: by token, by certificate, or on the Unix socket.
    Administrator,
    /// Whoever owns the data folder, on the Unix socket: for what holds the authority's keys.
    Owner,
    /// A join token, in the body.
    Token,
    /// A sidecar, by its certificate.
    Sidecar,
}

/// One request of the API.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    /// `{}` stands for one segment.
    path: &'static str,
    pub(super) asks: Asks,
    pub(super) needs: Needs,
    /// The longest body, bytes.
    pub(super) longest: usize,
}

/// Documents: ten thousand routes are 1.5 MB.
const DOCUMENTS: usize = 64 << 20;
/// A question, a certificate, a signing request.
const SMALL: usize = 64 << 10;
/// A question with a body to look into.
const QUESTION: usize = 1 << 20;

const ROUTES: &[Route] = &[
    get("/v1/version", Asks::Version),
    post("/v1/tokens", Asks::NewToken, SMALL),
    post("/v1/apply", Asks::Apply, DOCUMENTS),
    post("/v1/diff", Asks::Diff, DOCUMENTS),
    get("/v1/resources", Asks::Resources),
    delete("/v1/resources/{}/{}/{}", Asks::Delete),
    get("/v1/history", Asks::History),
    post("/v1/rollback", Asks::Rollback, SMALL),
    get("/v1/status", Asks::Status),
    get("/v1/wait", Asks::Wait),
    get("/v1/agents", Asks::Agents),
    post("/v1/explain", Asks::Explain, QUESTION),
    post("/v1/revoke", Asks::Revoke, SMALL),
    post("/v1/readmit", Asks::Readmit, SMALL),
    get("/v1/trust", Asks::Trust),
    post("/v1/trust/roots", Asks::AddRoot, SMALL),
    delete("/v1/trust/roots/{}", Asks::RemoveRoot),
    Route {
        method: Method::POST,
        path: "/v1/backup",
        asks: Asks::Backup,
        needs: Needs::Owner,
        longest: SMALL,
    },
    post("/v1/administrators", Asks::NewAdministrator, SMALL),
    post("/v1/ui", Asks::Ui, SMALL),
    Route { method: Method::POST, path: "/v1/join", asks: Asks::Join, needs: Needs::Token, longest: SMALL },
    Route {
        method: Method::POST,
        path: "/v1/renew",
        asks: Asks::Renew,
        needs: Needs::Sidecar,
        longest: SMALL,
    },
    get("/v1/traces", Asks::Traces),
    get("/v1/traces/{}", Asks::Trace),
    get("/v1/analysis", Asks::Analysis),
    get("/v1/changes", Asks::Changes),
    get("/v1/tap", Asks::Tap),
    get("/v1/why", Asks::Why),
    get("/v1/alerts", Asks::Alerts),
    get("/v1/graph", Asks::Graph),
    get("/v1/placement", Asks::Placement),
    get("/v1/placement/explain", Asks::Placed),
    post("/v1/placement/scale", Asks::Scale, SMALL),
    post("/v1/placement/rebalance", Asks::Rebalance, SMALL),
    post("/v1/nodes/mark", Asks::Mark, SMALL),
    get("/v1/replicas/tail", Asks::Tail),
    get("/v1/audit", Asks::Audit),
    get("/v1/audit/verify", Asks::AuditVerify),
    get("/v1/audit/holders", Asks::AuditHolders),
    post("/v1/authz/explain", Asks::AuthzExplain, QUESTION),
    get("/v1/authz/explain", Asks::AuthzExplain),
    get("/v1/authz/matrix", Asks::AuthzMatrix),
    get("/v1/policies/report", Asks::PolicyReport),
    get("/v1/actions", Asks::Actions),
    post("/v1/actions", Asks::Act, SMALL),
    Route {
        method: Method::POST,
        path: "/v1/otlp/traces",
        asks: Asks::Spans,
        needs: Needs::Sidecar,
        longest: super::otlp::LONGEST,
    },
    // Its body is read frame by frame, each with a limit of its own.
    Route { method: Method::POST, path: "/v1/stream", asks: Asks::Stream, needs: Needs::Sidecar, longest: 0 },
    // A node proves itself by a certificate too; which one is looked at when it opens.
    Route {
        method: Method::POST,
        path: "/v1/nodes/stream",
        asks: Asks::NodeStream,
        needs: Needs::Sidecar,
        longest: 0,
    },
];

const fn get(path: &'static str, asks: Asks) -> Route {
    Route { method: Method::GET, path, asks, needs: Needs::Administrator, longest: 0 }
}

const fn post(path: &'static str, asks: Asks, longest: usize) -> Route {
    Route { method: Method::POST, path, asks, needs: Needs::Administrator, longest }
}

const fn delete(path: &'static str, asks: Asks) -> Route {
    Route { method: Method::DELETE, path, asks, needs: Needs::Administrator, longest: 0 }
}

/// The row of a request, and the segments that stand for `{}`, decoded.
///
/// # Errors
/// 404 for a path that is not there, 405 for another method, 400 for a segment that cannot be decoded.
pub(super) fn find(method: &Method, path: &str) -> Result<(&'static Route, Vec<String>), Denied> {
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(raw) = matched(route.path, path) else { continue };
        if route.method == *method {
            let decoded: Option<Vec<String>> =
                raw.into_iter().map(|segment| decode(segment, false)).collect();
            return decoded
                .map(|decoded| (route, decoded))
                .ok_or_else(|| Denied::bad("bad escape in the path"));
        }
        allowed.push(route.method.as_str());
    }
    if allowed.is_empty() {
        return Err(Denied::not_found("there is no such path; the API is under /v1/"));
    }
    Err(Denied::method(&allowed.join(", ")))
}

fn matched<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut found = Vec::new();
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        let segment = segments.next()?;
        match expected {
            "{}" if !segment.is_empty() => found.push(segment),
            _ if segment == expected => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(found)
}

/// The query of a request: form-encoded pairs, each name at most once.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query; names that are not in `known` are refused, so that a misspelt filter does not give everything.
    pub(super) fn read(text: Option<&str>, known: &[&str]) -> Result<Query, Denied> {
        let mut read: Vec<(String, String)> = Vec::new();
        for (name, value) in self::pairs(text)? {
            if !known.contains(&name.as_str()) {
                let expected = if known.is_empty() { "there are none here".into() } else { known.join(", ") };
                return Err(Denied::bad(format!(
                    "unknown parameter `{}`; known: {expected}",
                    name.escape_debug()
                )));
            }
            if read.iter().any(|(seen, _)| *seen == name) {
                return Err(Denied::bad(format!("parameter `{name}` is there twice")));
            }
            read.push((name, value));
        }
        Ok(Query(read))
    }

    /// The value of a name; an empty one is none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(seen, _)| seen == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A whole number, or `default` when it is not there.
    pub(super) fn number(&self, name: &str, default: u64) -> Result<u64, Denied> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse().map_err(|_| Denied::bad(format!("parameter `{name}` is no whole number")))
    }
}

/// All pairs of a query, of which a name may be there several times.
///
/// # Errors
/// 400 for one that cannot be decoded.
pub(super) fn pairs(text: Option<&str>) -> Result<Vec<(String, String)>, Denied> {
    let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(name, true)?, decode(value, true)?))
    });
    pairs.collect::<Option<_>>().ok_or_else(|| Denied::bad("bad escape in the query"))
}

/// Takes `%XX` out, and `+` for a space where forms do so. `None`: no escape, or no UTF-8.
pub(super) fn decode(text: &str, form: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let (high, low) = (char::from(rest.next()?), char::from(rest.next()?));
                u8::try_from(high.to_digit(16)? * 16 + low.to_digit(16)?).ok()?
            }
            b'+' if form => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_whole_or_not_at_all() {
        let (route, segments) = find(&Method::DELETE, "/v1/resources/VirtualService/a%2Fb/c").unwrap();
        assert_eq!(
            (route.asks, segments),
            (Asks::Delete, vec!["VirtualService".into(), "a/b".into(), "c".into()])
        );
        for path in
            ["/", "/v1", "/v1/", "/v1/version/", "//v1/version", "/v1/resources/a/b", "/v1/trust/roots//", ""]
        {
            assert_eq!(find(&Method::GET, path).unwrap_err().answer().status(), 404, "{path}");
        }
        let denied = find(&Method::PUT, "/v1/trust/roots").unwrap_err().answer();
        assert_eq!((denied.status().as_u16(), denied.headers()["allow"].to_str().unwrap()), (405, "POST"));
        assert_eq!(find(&Method::DELETE, "/v1/trust/roots/%zz").unwrap_err().answer().status(), 400);
    }

    #[test]
    fn a_query_is_form_encoded_and_has_no_unknown_names() {
        let query =
            Query::read(Some("constraint=latency%3C200ms+x&capability="), &["constraint", "capability"])
                .unwrap();
        assert_eq!((query.get("constraint"), query.get("capability")), (Some("latency<200ms x"), None));
        for bad in ["limit=1&limit=2", "limits=1", "limit=%ff", "limit=%4"] {
            assert!(Query::read(Some(bad), &["limit"]).is_err(), "{bad}");
        }
        assert!(Query::read(Some("limit=-1"), &["limit"]).unwrap().number("limit", 3).is_err());
        assert_eq!(Query::read(None, &[]).unwrap().number("limit", 3).unwrap(), 3);
    }
}
