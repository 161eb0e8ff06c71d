//! Questions to real services on loopback, asked as a worker asks: from another runtime than the connections'.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use pilotfish_testkit::ca::{Ca, Leaf};
use pilotfish_testkit::origin::{Origin, Step, ok, send};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::bootstrap::Settings;
use crate::resolve;

const PATIENCE: Duration = Duration::from_secs(20);

/// The process's shared state, whose background is this test's runtime.
fn shared() -> Arc<Shared> {
    let settings = ["pilotfish-proxy", "--config", "/none", "--agent", "a"];
    let settings = <Settings as clap::Parser>::try_parse_from(settings).unwrap();
    let (shared, questions) = Shared::new(settings).unwrap();
    shared.asks.start(Handle::current());
    tokio::spawn(resolve::run(Loopback, shared.dns.clone(), questions, || {}));
    shared
}

/// Every name is 127.0.0.1.
struct Loopback;

impl resolve::Lookup for Loopback {
    async fn lookup(&self, _: &str) -> Result<resolve::Answer, String> {
        let addresses = vec!["127.0.0.1".parse().unwrap()];
        Ok(resolve::Answer { addresses, ttl: Duration::from_secs(60) })
    }
}

fn question(uri: &str) -> Question {
    Question::new(Request::post(uri).body(Bytes::from_static(b"x=1")).unwrap(), PATIENCE, 1000)
}

/// Asks from a runtime of its own, which ends afterwards.
async fn elsewhere(shared: &Arc<Shared>, question: Question) -> Result<Response<Bytes>, String> {
    let shared = shared.clone();
    let worker = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(ask(&shared, question))
    };
    tokio::task::spawn_blocking(worker).await.unwrap()
}

#[tokio::test]
async fn one_connection_serves_questions_of_many_threads() {
    let (shared, origin) = (shared(), Origin::plain().await);
    for _ in 0..3 {
        let answer = elsewhere(&shared, question(&format!("http://{}/token?a=b", origin.addr()))).await;
        let answer = answer.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"seen POST /token?a=b"[..]));
    }
    assert_eq!((origin.connections().len(), origin.requests().len()), (1, 3));
    let seen = &origin.requests()[0];
    assert_eq!(seen.header("host"), Some(origin.addr().to_string()));
    assert_eq!(seen.body, b"x=1");
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_no_failure() {
    let origin = Origin::start(|_, n| if n == 0 { ok("one") } else { vec![Step::Reset] }).await;
    let shared = shared();
    for _ in 0..3 {
        let answer = ask(&shared, question(&format!("http://{}/", origin.addr()))).await.unwrap();
        assert_eq!(&answer.body()[..], b"one");
    }
    assert_eq!(origin.connections().len(), 3);
}

#[tokio::test]
async fn bad_answers_are_said_and_forgotten() {
    let long = format!("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n{}", "x".repeat(1001));
    let redirect = "HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n";
    let endless =
        vec![send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"), Step::Hang];
    for (steps, says) in [
        (vec![send(long)], Err("its answer is longer than 1000 bytes")),
        (vec![Step::Hang], Err("no answer within 300ms")),
        (endless, Err("no answer within 300ms")),
        (vec![send("SSH-2.0-x\r\n")], Err("HTTP")),
        (vec![Step::Reset], Err("")),
        (vec![send(redirect)], Ok(302)),
    ] {
        let origin = Origin::start(move |_, _| steps.clone()).await;
        let timeout =
            if says == Err("no answer within 300ms") { Duration::from_millis(300) } else { PATIENCE };
        let question = Question { timeout, ..question(&format!("http://{}/", origin.addr())) };
        let answer = ask(&shared(), question).await;
        match (answer, says) {
            (Ok(answer), Ok(status)) => assert_eq!(answer.status().as_u16(), status),
            (Err(why), Err(says)) => assert!(why.contains(says), "{why} / {says}"),
            (answer, says) => panic!("{answer:?} / {says:?}"),
        }
        assert_eq!(origin.requests().len(), 1);
    }
}

#[tokio::test]
async fn addresses_that_cannot_be_asked() {
    let shared = shared();
    for (uri, says) in [
        ("ftp://127.0.0.1/?secret", "ftp://127.0.0.1/ begins neither"),
        ("/token", "begins neither with https:// nor"),
        ("http://user:secret@127.0.0.1/", "and no user"),
        ("http://127.0.0.1:1/", "onnection refused"),
    ] {
        let why = ask(&shared, question(uri)).await.unwrap_err();
        assert!(why.contains(says) && !why.contains("secret"), "{why}");
    }
}

#[tokio::test]
async fn only_so_many_at_a_time_and_a_dropped_one_frees_its_place() {
    let (shared, origin) = (shared(), Origin::start(|_, _| vec![Step::Hang]).await);
    let uri = format!("http://{}/", origin.addr());
    let mut asked: Vec<_> = (0..AT_ONCE).map(|_| Box::pin(ask(&shared, question(&uri)))).collect();
    for one in &mut asked {
        let _ = tokio::time::timeout(Duration::from_millis(1), one).await;
    }
    let began = Instant::now();
    while origin.requests().len() < AT_ONCE && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let why = ask(&shared, question(&uri)).await.unwrap_err();
    assert!(why.contains("64 questions"), "{why}");
    drop(asked);
    while shared.asks.places.available_permits() < AT_ONCE && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(shared.asks.places.available_permits(), AT_ONCE);
}

/// An HTTP/2 service that answers with the path, and trailers; how many connections there were, and the newest one's task.
async fn h2_service() -> (u16, Arc<Mutex<Vec<tokio::task::JoinHandle<()>>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, connections) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<_>>>::default());
    let opened = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("7"));
                let body = Full::new(Bytes::from(request.uri().path().to_owned()));
                let body = body.with_trailers(async move { Some(Ok(trailers)) });
                Ok::<_, std::convert::Infallible>(Response::new(body))
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            let builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            opened.lock().unwrap().push(tokio::spawn(async move {
                let _ = builder.serve_connection(io, service).await;
            }));
        }
    });
    (port, connections)
}

#[tokio::test]
async fn questions_share_an_http2_connection_and_a_dead_one_is_replaced() {
    let (shared, (port, connections)) = (shared(), h2_service().await);
    let question = || Question { h2: true, ..question(&format!("http://127.0.0.1:{port}/a")) };
    let both = tokio::join!(ask(&shared, question()), ask(&shared, question()));
    for answer in [both.0, both.1] {
        let answer = answer.unwrap();
        assert_eq!(
            (&answer.body()[..], &answer.headers()["grpc-status"]),
            (&b"/a"[..], &HeaderValue::from_static("7"))
        );
    }
    let before = connections.lock().unwrap().len();
    for n in 0..3 {
        connections.lock().unwrap().iter().for_each(tokio::task::JoinHandle::abort);
        for _ in 0..3 {
            ask(&shared, question()).await.unwrap();
        }
        assert_eq!(connections.lock().unwrap().len(), before + 1 + n);
    }
}

/// A TLS service that answers everything with 200; and how many handshakes it has seen.
async fn tls_service(ca: &Ca, clients: bool) -> (u16, Arc<AtomicUsize>) {
    let leaf = Leaf { dns: vec!["localhost".into()], ..Leaf::agent("mesh.local", "default", "idp") };
    let acceptor = TlsAcceptor::from(ca.server(&ca.issue(&leaf), clients, &[b"http/1.1"]));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, seen) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(stream).await else { continue };
            count.fetch_add(1, SeqCst);
            tokio::spawn(async move {
                let mut bytes = vec![0; 4096];
                while tls.read(&mut bytes).await.is_ok_and(|n| n > 0) {
                    let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    (port, seen)
}

#[tokio::test]
async fn tls_by_a_file_with_a_name_and_a_client_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, other) = (Ca::new("mesh.local"), Ca::new("other.local"));
    let roots = ca.write_bundle(folder.path());
    let others = folder.path().join("others.pem");
    std::fs::write(&others, other.root_pem()).unwrap();
    let own = ca.issue(&Leaf::agent("mesh.local", "default", "a")).write(folder.path(), "own");
    let (port, seen) = tls_service(&ca, true).await;
    let shared = shared();
    let question = |host: &str, roots: &Path, client: bool| Question {
        roots: Some(roots.to_owned()),
        client: client.then(|| (own.chain.clone(), own.key.clone())),
        ..question(&format!("https://{host}:{port}/"))
    };
    // The name of the certificate is looked at, so the address is no good.
    let why = ask(&shared, question("127.0.0.1", &roots, true)).await.unwrap_err();
    assert!(why.contains("TLS: invalid peer certificate"), "{why}");
    let why = ask(&shared, question("127.0.0.1", &others, true)).await.unwrap_err();
    assert!(why.contains("UnknownIssuer"), "{why}");
    let why = ask(&shared, question("127.0.0.1", &folder.path().join("none"), true)).await.unwrap_err();
    assert!(why.contains("/none: No such file"), "{why}");
    assert_eq!(seen.load(SeqCst), 0);
    for _ in 0..2 {
        let answer = ask(&shared, question("localhost", &roots, true)).await.unwrap();
        assert_eq!(&answer.body()[..], b"ok");
    }
    assert_eq!(seen.load(SeqCst), 1);
    // A connection that showed a certificate is not used for questions that show none.
    let why = ask(&shared, question("localhost", &roots, false)).await.unwrap_err();
    assert!(!why.is_empty() && seen.load(SeqCst) == 1, "{why}");
}
