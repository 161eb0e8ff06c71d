//! CUSTOM: authorizers that speak Envoy's ext_authz protocol, by gRPC and by HTTP, good ones and bad ones. What counts is what the
//! agent received.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use pilotfish_testkit::h1::Answer;
use pilotfish_testkit::origin::{Step, ok, send};
use pilotfish_testkit::strict::Message as Seen;
use pilotfish_testkit::{H1, Nobody, Origin, Sidecar};
use prost::Message;
use tokio::net::TcpListener;

use crate::support::sidecar;

/// The messages, as `envoy/service/auth/v3/external_auth.proto` has them, written down here a second time.
mod envoy {
    use super::HashMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct CheckRequest {
        #[prost(message, optional, tag = "1")]
        pub attributes: Option<Attributes>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Attributes {
        #[prost(message, optional, tag = "1")]
        pub source: Option<Peer>,
        #[prost(message, optional, tag = "2")]
        pub destination: Option<Peer>,
        #[prost(message, optional, tag = "4")]
        pub request: Option<Request>,
        #[prost(map = "string, string", tag = "10")]
        pub context_extensions: HashMap<String, String>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Peer {
        #[prost(message, optional, tag = "1")]
        pub address: Option<Address>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Address {
        #[prost(message, optional, tag = "1")]
        pub socket: Option<Socket>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Socket {
        #[prost(string, tag = "2")]
        pub address: String,
        #[prost(uint32, tag = "3")]
        pub port: u32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        #[prost(message, optional, tag = "2")]
        pub http: Option<Http>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Http {
        #[prost(string, tag = "2")]
        pub method: String,
        #[prost(map = "string, string", tag = "3")]
        pub headers: HashMap<String, String>,
        #[prost(string, tag = "4")]
        pub path: String,
        #[prost(string, tag = "5")]
        pub host: String,
        #[prost(int64, tag = "9")]
        pub size: i64,
        #[prost(string, tag = "11")]
        pub body: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct CheckResponse {
        #[prost(message, optional, tag = "1")]
        pub status: Option<Code>,
        #[prost(message, optional, tag = "2")]
        pub denied: Option<Denied>,
        #[prost(message, optional, tag = "3")]
        pub ok: Option<Ok>,
        #[prost(message, optional, tag = "4")]
        pub metadata: Option<Struct>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Struct {
        #[prost(map = "string, message", tag = "1")]
        pub fields: HashMap<String, Text>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Text {
        #[prost(string, tag = "3")]
        pub text: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Code {
        #[prost(int32, tag = "1")]
        pub code: i32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Denied {
        #[prost(message, optional, tag = "1")]
        pub status: Option<Code>,
        #[prost(message, repeated, tag = "2")]
        pub headers: Vec<Header>,
        #[prost(string, tag = "3")]
        pub body: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Ok {
        #[prost(message, repeated, tag = "2")]
        pub headers: Vec<Header>,
        #[prost(string, repeated, tag = "5")]
        pub remove: Vec<String>,
        #[prost(message, repeated, tag = "6")]
        pub response_headers: Vec<Header>,
        #[prost(message, repeated, tag = "7")]
        pub query: Vec<Pair>,
        #[prost(string, repeated, tag = "8")]
        pub query_remove: Vec<String>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Header {
        #[prost(message, optional, tag = "1")]
        pub pair: Option<Pair>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Pair {
        #[prost(string, tag = "1")]
        pub key: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }
}

fn header(key: &str, value: &str) -> envoy::Header {
    envoy::Header { pair: Some(envoy::Pair { key: key.into(), value: value.into() }) }
}

/// A gRPC server that is asked; what it answers hangs on the call's `x-case`.
struct Grpc {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<envoy::Attributes>>>,
}

impl Grpc {
    async fn start() -> Grpc {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<envoy::Attributes>>> = Arc::default();
        let record = asked.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let record = record.clone();
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(answer(request, respond, record.clone()));
                    }
                });
            }
        });
        Grpc { addr, asked }
    }

    fn asked(&self) -> Vec<envoy::Attributes> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    record: Arc<Mutex<Vec<envoy::Attributes>>>,
) {
    assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    let attributes = envoy::CheckRequest::decode(&bytes[5..]).unwrap().attributes.unwrap();
    let case = attributes.request.as_ref().unwrap().http.as_ref().unwrap().headers.get("x-case").cloned();
    record.lock().unwrap().push(attributes);
    let yes =
        envoy::CheckResponse { status: Some(envoy::Code { code: 0 }), ..envoy::CheckResponse::default() };
    let no =
        envoy::CheckResponse { status: Some(envoy::Code { code: 7 }), ..envoy::CheckResponse::default() };
    let mut status = "0";
    let mut message = match case.as_deref().unwrap_or_default() {
        "yes" => yes,
        "headers" => envoy::CheckResponse {
            ok: Some(envoy::Ok {
                headers: vec![
                    header("x-user", "ann"),
                    header("x-pilotfish-origin", "evil"),
                    header("host", "evil.test"),
                    header("content-length", "3"),
                ],
                remove: vec!["x-secret".into()],
                response_headers: vec![header("x-checked", "yes"), header("transfer-encoding", "x")],
                ..envoy::Ok::default()
            }),
            ..yes
        },
        "query" => envoy::CheckResponse {
            ok: Some(envoy::Ok {
                query: vec![
                    envoy::Pair { key: "b".into(), value: "2&admin=1 \r\nx: y".into() },
                    envoy::Pair { key: "user".into(), value: "ann".into() },
                ],
                query_remove: vec!["secret".into()],
                ..envoy::Ok::default()
            }),
            ..yes
        },
        "inject" => envoy::CheckResponse {
            ok: Some(envoy::Ok {
                headers: vec![header("x-user", "a\r\nx-pilotfish-origin: evil")],
                ..envoy::Ok::default()
            }),
            ..yes
        },
        "role" => envoy::CheckResponse {
            ok: Some(envoy::Ok { headers: vec![header("x-role", "admin")], ..envoy::Ok::default() }),
            ..yes
        },
        "team" | "other-team" => {
            let text = if case.as_deref() == Some("team") { "blue" } else { "red" }.to_owned();
            let fields = HashMap::from([("team".to_owned(), envoy::Text { text })]);
            envoy::CheckResponse { metadata: Some(envoy::Struct { fields }), ..yes }
        }
        "no" => no,
        "teapot" => envoy::CheckResponse {
            denied: Some(envoy::Denied {
                status: Some(envoy::Code { code: 418 }),
                headers: vec![header("x-why", "tea"), header("pilotfish-reason", "forged")],
                body: "I am a teapot".into(),
            }),
            ..no
        },
        "unavailable" => {
            status = "14";
            yes
        }
        "hang" => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            yes
        }
        _ => no,
    }
    .encode_to_vec();
    if case.as_deref() == Some("garbage") {
        message = vec![0xff; 40];
    }
    if case.as_deref() == Some("endless") {
        let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let Ok(mut stream) = respond.send_response(head, false) else { return };
        while stream.send_data(vec![0; 16384].into(), false).is_ok() {
            stream.reserve_capacity(16384);
            if std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.is_none_or(|ready| ready.is_err()) {
                return;
            }
        }
        return;
    }
    if case.as_deref() == Some("gone") {
        return respond.send_reset(h2::Reason::INTERNAL_ERROR);
    }
    if case.as_deref() == Some("huge") {
        message = vec![0; 1_000_000];
    }
    let framed = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let Ok(mut stream) = respond.send_response(head, false) else { return };
    let _ = stream.send_data(framed.into(), false);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    let _ = stream.send_trailers(trailers);
}

struct Guarded {
    origin: Origin,
    sidecar: Sidecar,
}

impl Guarded {
    /// An agent of which everything below `/checked` is asked about.
    async fn by(provider: &str) -> Guarded {
        Guarded::with(provider, "").await
    }

    async fn with(provider: &str, annotations: &str) -> Guarded {
        Guarded::of(provider, annotations, "").await
    }

    async fn of(provider: &str, annotations: &str, more: &str) -> Guarded {
        let origin = Origin::start(|m, _| ok(format!("seen {}", m.target()))).await;
        let yaml = format!(
            "apiVersion: pilotfish.dev/v1\nkind: AuthorizationProvider\nmetadata: {{ name: checker }}\nspec: {provider}\n---\n\
             apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: p, annotations: {{ {annotations} }} }}\n\
             spec: {{ action: CUSTOM, provider: {{ name: checker }}, rules: [{{ to: [{{ operation: {{ paths: ['/checked*'] }} }}] }}] }}\n{more}"
        );
        let sidecar = sidecar().app(origin.addr()).yaml("p.yaml", yaml).start();
        Guarded { origin, sidecar }
    }

    async fn ask(&self, request: &str) -> (Answer, Option<Seen>) {
        self.origin.forget();
        let answer = H1::connect(self.sidecar.inbound)
            .await
            .patience(Duration::from_secs(30))
            .ask(request)
            .await
            .unwrap();
        (answer, self.origin.requests().pop())
    }

    async fn case(&self, case: &str) -> (Answer, Option<Seen>) {
        self.ask(&get("/checked/a?b=1", case)).await
    }
}

fn get(path: &str, case: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x.test\r\nx-case: {case}\r\nx-secret: s\r\nx-user: forged\r\n\r\n")
}

#[tokio::test]
async fn by_grpc_calls_are_described_and_answers_obeyed() {
    let server = Grpc::start().await;
    let port = server.addr.port();
    let guarded = Guarded::by(&format!(
        "{{ grpc: {{ service: 127.0.0.1, port: {port}, contextExtensions: {{ mesh: m }} }}, timeout: 20s }}"
    ))
    .await;
    let (told, got) = guarded.ask(&get("/open", "no")).await;
    assert_eq!((told.status(), got.is_some(), server.asked().len()), (200, true, 0), "no rule is for it");
    let (told, got) = guarded.case("yes").await;
    assert_eq!((told.status(), got.unwrap().header("x-user")), (200, Some("forged".into())));
    let asked = server.asked().pop().unwrap();
    let http = asked.request.unwrap().http.unwrap();
    assert_eq!((&*http.method, &*http.path, &*http.host), ("GET", "/checked/a?b=1", "x.test"));
    assert_eq!((&*http.headers["x-secret"], &*http.headers[":path"]), ("s", "/checked/a?b=1"));
    assert_eq!(asked.source.unwrap().address.unwrap().socket.unwrap().address, "127.0.0.1");
    let agent = asked.destination.unwrap().address.unwrap().socket.unwrap();
    assert_eq!(agent.port, u32::from(guarded.origin.port()));
    assert_eq!(asked.context_extensions["mesh"], "m");

    let (told, got) = guarded.case("headers").await;
    let got = got.unwrap();
    assert_eq!((told.status(), told.header("x-checked")), (200, Some("yes".into())));
    assert_eq!((got.header("x-user"), got.header("x-secret")), (Some("ann".into()), None));
    assert_eq!((got.header("host"), got.header("x-pilotfish-origin")), (Some("x.test".into()), None));

    let (told, got) = guarded.case("no").await;
    assert_eq!((told.status(), &*told.reason(), got), (403, "access-denied", None));
    let (told, got) = guarded.case("teapot").await;
    assert_eq!((told.status(), &*told.reason(), got), (418, "access-denied", None));
    assert_eq!((&*told.text(), told.header("x-why")), ("I am a teapot", Some("tea".into())));
    for case in ["garbage", "huge", "endless", "gone", "inject", "unavailable"] {
        let (told, got) = guarded.case(case).await;
        assert_eq!((told.status(), &*told.reason(), got), (403, "authorizer-unavailable", None), "{case}");
    }
}

#[tokio::test]
async fn an_authorizer_that_hangs_or_is_gone_refuses_or_lets_through_as_stated() {
    let server = Grpc::start().await;
    let port = server.addr.port();
    let closed = Guarded::by(&format!(
        "{{ grpc: {{ service: 127.0.0.1, port: {port} }}, timeout: 200ms, statusOnError: \"503\" }}"
    ))
    .await;
    let (told, got) = closed.case("hang").await;
    assert_eq!((told.status(), &*told.reason(), got), (503, "authorizer-unavailable", None));
    // More at once than may be asked at once: each is answered in its time.
    let many = (0..80).map(|_| closed.sidecar.inbound).map(|to| {
        tokio::spawn(async move {
            let mut h1 = H1::connect(to).await.patience(Duration::from_secs(30));
            h1.ask(get("/checked", "hang")).await.map(|told| told.status())
        })
    });
    for told in many.collect::<Vec<_>>() {
        assert_eq!(told.await.unwrap(), Ok(503));
    }
    let open = Guarded::by(&format!(
        "{{ grpc: {{ service: 127.0.0.1, port: {port} }}, timeout: 200ms, failOpen: true }}"
    ))
    .await;
    let (told, got) = open.case("hang").await;
    assert_eq!((told.status(), got.is_some()), (200, true));
    // It opens for what cannot be asked, not for what is refused.
    let patient = Guarded::by(&format!(
        "{{ grpc: {{ service: 127.0.0.1, port: {port} }}, timeout: 20s, failOpen: true }}"
    ))
    .await;
    assert_eq!(patient.case("no").await.0.status(), 403);

    let nobody = Nobody::new();
    for (more, status, reaches) in [("", 403, false), (", failOpen: true", 200, true)] {
        let gone = Guarded::by(&format!(
            "{{ http: {{ service: 127.0.0.1, port: {} }}, timeout: 20s{more} }}",
            nobody.port()
        ))
        .await;
        let (told, got) = gone.case("yes").await;
        assert_eq!((told.status(), got.is_some()), (status, reaches));
    }
}

fn http_server(m: &Seen, _: usize) -> Vec<Step> {
    let answer = match m.header("x-case").unwrap_or_default().as_str() {
        "yes" => {
            "HTTP/1.1 200 OK\r\nx-user: ann\r\nx-not: listed\r\nx-down: 1\r\nContent-Length: 7\r\n\r\nignored"
        }
        "login" => "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
        "no" => "HTTP/1.1 401 No\r\nContent-Type: text/x-no\r\nx-why: you\r\nContent-Length: 2\r\n\r\nno",
        "broken" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 11\r\n\r\n0123456789",
        "error" => "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        _ => "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
    };
    vec![send(answer)]
}

#[tokio::test]
async fn by_http_the_call_is_asked_about_by_its_own_path() {
    let server = Origin::start(http_server).await;
    let port = server.port();
    let guarded = Guarded::by(&format!(
        "{{ http: {{ service: 127.0.0.1, port: {port}, pathPrefix: /check, includeRequestHeadersInCheck: [x-case], \
         includeAdditionalHeadersInCheck: {{ x-mesh: m }}, headersToUpstreamOnAllow: [x-user], headersToDownstreamOnAllow: ['x-d*'] }}, \
         timeout: 20s }}"
    ))
    .await;
    let (told, got) = guarded.case("yes").await;
    let got = got.unwrap();
    assert_eq!(
        (told.text().as_str(), told.header("x-down"), told.header("x-user")),
        ("seen /checked/a?b=1", Some("1".into()), None)
    );
    assert_eq!(
        (got.header("x-user"), got.header("x-not"), got.header("x-secret")),
        (Some("ann".into()), None, Some("s".into()))
    );
    let asked = server.requests().pop().unwrap();
    assert_eq!((asked.method(), asked.target()), ("GET", "/check/checked/a?b=1"));
    assert_eq!(
        (asked.header("host"), asked.header("x-mesh"), asked.header("x-secret")),
        (Some("x.test".into()), Some("m".into()), None)
    );
    let (told, got) = guarded.case("no").await;
    assert_eq!((told.status(), &*told.reason(), &*told.text(), got), (401, "access-denied", "no", None));
    assert_eq!(
        (told.header("content-type"), told.header("x-why")),
        (Some("text/x-no".into()), Some("you".into()))
    );
    let (told, _) = guarded.case("login").await;
    assert_eq!((told.status(), told.header("location")), (302, Some("/login".into())));
    for case in ["broken", "error"] {
        let (told, got) = guarded.case(case).await;
        assert_eq!((told.status(), &*told.reason(), got), (403, "authorizer-unavailable", None), "{case}");
    }
}

#[tokio::test]
async fn a_body_goes_along_whole_or_in_part_and_reaches_the_agent() {
    let server = Grpc::start().await;
    let port = server.addr.port();
    let post = |body: &str| {
        format!(
            "POST /checked HTTP/1.1\r\nHost: x.test\r\nx-case: yes\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (partial, long) in [(false, 413), (true, 200)] {
        let guarded = Guarded::by(&format!(
            "{{ grpc: {{ service: 127.0.0.1, port: {port} }}, timeout: 20s, \
             includeRequestBodyInCheck: {{ maxRequestBytes: 5, allowPartialMessage: {partial} }} }}"
        ))
        .await;
        let body = || server.asked().pop().unwrap().request.unwrap().http.unwrap().body;
        let (told, got) = guarded.ask(&post("12345")).await;
        assert_eq!((told.status(), &*got.unwrap().body, &*body()), (200, &b"12345"[..], "12345"));
        let (told, got) = guarded.ask(&post("123456")).await;
        assert_eq!((told.status(), got.map(|got| got.body)), (long, partial.then(|| b"123456".to_vec())));
        if partial {
            assert_eq!(body(), "12345");
        }
    }
}

#[tokio::test]
async fn answers_are_remembered_for_the_same_call_only() {
    let server = Grpc::start().await;
    let port = server.addr.port();
    let guarded = Guarded::by(&format!(
        "{{ grpc: {{ service: 127.0.0.1, port: {port} }}, timeout: 20s, cache: {{ ttl: 1h, headers: [x-case] }} }}"
    ))
    .await;
    for _ in 0..3 {
        let (told, got) = guarded.case("headers").await;
        assert_eq!(
            (told.header("x-checked"), got.unwrap().header("x-user")),
            (Some("yes".into()), Some("ann".into()))
        );
        assert_eq!(guarded.case("teapot").await.0.status(), 418);
    }
    assert_eq!(server.asked().len(), 2);
    for request in [
        get("/checked/b", "yes"),
        get("/checked/a?b=2", "yes"),
        get("/checked/a?b=1", "yes").replace("GET", "DELETE"),
        get("/checked/a?b=1", "yes").replace("x.test", "y.test"),
        get("/checked/a?b=1", "yes").replace("\r\n\r\n", "\r\nAuthorization: Bearer x\r\n\r\n"),
    ] {
        assert_eq!(guarded.ask(&request).await.0.status(), 200);
        assert_eq!(server.asked().len(), 1, "{request}");
    }
    // What is no answer is not remembered.
    for _ in 0..2 {
        guarded.case("garbage").await;
    }
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_dry_run_is_asked_and_not_obeyed() {
    let server = Grpc::start().await;
    let provider =
        format!("{{ grpc: {{ service: 127.0.0.1, port: {} }}, timeout: 20s }}", server.addr.port());
    let guarded = Guarded::with(&provider, "istio.io/dry-run: 'true'").await;
    for case in ["teapot", "garbage", "headers"] {
        let (told, got) = guarded.case(case).await;
        assert_eq!((told.status(), got.unwrap().header("x-user")), (200, Some("forged".into())), "{case}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn what_is_decided_on_is_what_is_sent_as_the_authorizer_has_changed_it() {
    let server = Grpc::start().await;
    let policy = |action: &str, name: &str, rule: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: {name} }}\n\
             spec: {{ action: {action}, rules: [{rule}] }}\n"
        )
    };
    let provider =
        format!("{{ grpc: {{ service: 127.0.0.1, port: {} }}, timeout: 20s }}", server.addr.port());
    let guarded = Guarded::of(&provider, "", &(policy("ALLOW", "allowed", "{ to: [{ operation: { paths: ['/checked/a'] } }] }")
        + &policy("DENY", "role", "{ when: [{ key: 'request.headers[x-role]', values: [admin] }] }")
        + &policy("DENY", "team", "{ when: [{ key: 'experimental.envoy.filters.http.ext_authz[team]', values: ['[red]', green] }] }")))
    .await;
    // Not by the caller's word.
    for (case, status, by) in [
        ("yes", 200, ""),
        ("role", 403, "default/role"),
        ("team", 200, ""),
        ("other-team", 403, "default/team"),
    ] {
        let (told, got) = guarded.case(case).await;
        assert_eq!((told.status(), got.is_some()), (status, status == 200), "{case}: {}", told.text());
        assert!(told.text().contains(by), "{case}: {}", told.text());
    }
    let (told, got) = guarded.ask(&get("/checked/a?secret=1&b=1&c=3&s%65cret", "query")).await;
    let target = "/checked/a?c=3&b=2%26admin%3D1%20%0D%0Ax:%20y&user=ann";
    assert_eq!((told.status(), got.unwrap().target()), (200, target));
}

/// What an authorizer does after it said something.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Closes,
    /// It goes on reading.
    ClosesItsHalf,
    Stops,
}

/// An authorizer that answers with this, whatever it is asked. Its port.
async fn says(part: String, then: Then) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let part = part.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                let _ = socket.read(&mut bytes).await;
                let _ = socket.write_all(part.as_bytes()).await;
                if then != Then::Stops {
                    let _ = socket.shutdown().await;
                }
                if then != Then::Closes {
                    while socket.read(&mut bytes).await.is_ok_and(|n| n > 0) {}
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn an_authorizer_that_stops_in_the_middle_is_none() {
    for (part, then) in [
        ("", Then::Closes),
        ("", Then::ClosesItsHalf),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", Then::Closes),
        ("HTTP/1.1 20", Then::ClosesItsHalf),
    ] {
        let port = says(part.to_owned(), then).await;
        let guarded =
            Guarded::by(&format!("{{ http: {{ service: 127.0.0.1, port: {port} }}, timeout: 20s }}")).await;
        let (told, got) = guarded.case("yes").await;
        assert_eq!((told.status(), &*told.reason(), got), (403, "authorizer-unavailable", None), "{part:?}");
    }
}

#[tokio::test]
async fn a_refusal_stays_one_whatever_becomes_of_its_body() {
    let long = "x".repeat(300_000);
    let broken = "HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nab".to_owned();
    for (part, then, timeout) in [
        (broken.clone(), Then::ClosesItsHalf, "20s"),
        (format!("HTTP/1.1 403 No\r\nContent-Length: 300000\r\n\r\n{long}"), Then::ClosesItsHalf, "20s"),
        // Half of the time is waited for the rest.
        (broken, Then::Stops, "5s"),
    ] {
        let port = says(part, then).await;
        let provider =
            format!("{{ http: {{ service: 127.0.0.1, port: {port} }}, timeout: {timeout}, failOpen: true }}");
        let (told, got) = Guarded::by(&provider).await.case("no").await;
        assert_eq!((told.status(), &*told.reason(), got), (403, "access-denied", None));
    }
}
