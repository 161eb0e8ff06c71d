//! The smallest HTTP/1.1 that a probe, a scraper and curl need: one request on a connection, no request body, and an
//! end to everything that is slow or large.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;

/// Connections that are answered at a time; more wait.
const AT_A_TIME: usize = 64;

/// The largest request head.
const HEAD: usize = 8 * 1024;

/// How long a request may take, from accept to the last byte of the answer.
const WHOLE: Duration = Duration::from_secs(10);

/// An answer of the administration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    content_type: &'static str,
    allow: Option<&'static str>,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn new(status: u16, content_type: &'static str, body: String) -> Self {
        Answer { status, content_type, allow: None, body }
    }

    pub(super) fn text(status: u16, body: &str) -> Self {
        Answer::new(status, "text/plain; charset=utf-8", body.to_owned())
    }

    /// Names the methods that are allowed, as a 405 must.
    pub(super) fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    fn head(&self) -> String {
        let phrase = match self.status {
            200 => "OK",
            202 => "Accepted",
            404 => "Not Found",
            405 => "Method Not Allowed",
            503 => "Service Unavailable",
            _ => "Bad Request",
        };
        let allow = self.allow.map(|methods| format!("allow: {methods}\r\n")).unwrap_or_default();
        format!(
            "HTTP/1.1 {} {phrase}\r\ncontent-type: {}\r\ncontent-length: {}\r\n{allow}cache-control: no-store\r\n\
             x-content-type-options: nosniff\r\nconnection: close\r\n\r\n",
            self.status,
            self.content_type,
            self.body.len(),
        )
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) method: String,
    /// The path with its query.
    pub(super) path: String,
    /// All `Accept` fields, joined by commas.
    pub(super) accept: String,
}

/// Answers what `accept` gives by `answer`, for ever.
pub(super) async fn serve<S, A, F>(accept: A, answer: impl Fn(Asked) -> F + Send + Sync + 'static)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: AsyncFn() -> io::Result<S>,
    F: Future<Output = Answer> + Send,
{
    let answer = Arc::new(answer);
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok(stream) = accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(WHOLE, exchange(stream, &*answer)).await;
            drop(place);
        });
    }
}

async fn exchange<S, F>(mut stream: S, answer: &(impl Fn(Asked) -> F + ?Sized)) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Answer>,
{
    let mut head = Vec::with_capacity(1024);
    let (answer, with_body) = loop {
        let closed = stream.read_buf(&mut head).await? == 0;
        match parse(&head) {
            Some(Ok(asked)) => {
                let with_body = asked.method != "HEAD";
                break (answer(asked).await, with_body);
            }
            Some(Err(())) => break (Answer::text(400, "bad request\n"), true),
            None if head.len() > HEAD => break (Answer::text(400, "too large\n"), true),
            None if closed => return Ok(()),
            None => {}
        }
    };
    let mut bytes = answer.head();
    if with_body {
        bytes.push_str(&answer.body);
    }
    stream.write_all(bytes.as_bytes()).await?;
    stream.shutdown().await
}

/// What is needed of a complete head; `None` while it is incomplete.
fn parse(head: &[u8]) -> Option<Result<Asked, ()>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => None,
        Ok(httparse::Status::Complete(_)) => {
            let (method, path) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
            let accepts = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("accept"));
            let accepts: Vec<_> = accepts.map(|field| String::from_utf8_lossy(field.value)).collect();
            Some(Ok(Asked { method: method.to_owned(), path: path.to_owned(), accept: accepts.join(",") }))
        }
        Err(_) => Some(Err(())),
    }
}

/// A whole exchange on one request's bytes, for the tests of the administration.
#[cfg(test)]
pub(super) async fn exchange_bytes(request: &[u8], answer: impl Fn(Asked) -> Answer) -> String {
    let answer = |asked| std::future::ready(answer(asked));
    let (client, server) = tokio::io::duplex(64 * 1024);
    let (mut reader, mut writer) = tokio::io::split(client);
    let client = async {
        writer.write_all(request).await.unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        text
    };
    let (served, text) = tokio::join!(exchange(server, &answer), client);
    served.unwrap();
    text
}
