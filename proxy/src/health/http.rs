//! An HTTP probe: a GET over HTTP/1.1, good when the status is 200 to 399, as Kubernetes has it.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest head that is waited for.
const HEAD: usize = 16 << 10;

/// What is sent, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request(String);

impl Request {
    /// A GET of `path`; headers win over those that a probe has anyway.
    pub fn new(path: &str, host: &str, headers: &[(String, String)]) -> Request {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let mut text = format!("GET {path} HTTP/1.1\r\nconnection: close\r\n");
        let clean = |text: &str| !text.bytes().any(|byte| byte.is_ascii_control());
        for (name, value) in headers {
            if clean(name) && clean(value) && !name.eq_ignore_ascii_case("connection") {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        let own = [("host", host), ("user-agent", "pilotfish-probe"), ("accept", "*/*")];
        for (name, value) in own {
            if !headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        text.push_str("\r\n");
        Request(text)
    }
}

/// Asks once.
///
/// # Errors
/// What is wrong with the answer, or with the way to it.
pub async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &Request) -> Result<(), String> {
    stream.write_all(request.0.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut head = Vec::with_capacity(1024);
    loop {
        if let Some(status) = status(&head)? {
            return if (200..400).contains(&status) { Ok(()) } else { Err(format!("it answers {status}")) };
        }
        if head.len() > HEAD {
            return Err("its answer's head is too long".into());
        }
        if stream.read_buf(&mut head).await.map_err(|error| error.to_string())? == 0 {
            return Err("it closed the connection without an answer".into());
        }
    }
}

/// The status of the final answer, once its head is whole. Interim answers are passed over.
fn status(mut bytes: &[u8]) -> Result<Option<u16>, String> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(bytes).map_err(|error| format!("its answer is no HTTP: {error}"))? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete(length) => match response.code.unwrap_or(0) {
                100..=199 => bytes = &bytes[length..],
                status => return Ok(Some(status)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_no_line_that_it_should_not_have() {
        let headers = [("X-A".to_owned(), "1\r\nx-b: 2".to_owned()), ("Host".to_owned(), "h".to_owned())];
        let request = Request::new("p", "ignored:1", &headers);
        assert!(request.0.starts_with("GET /p HTTP/1.1\r\n") && request.0.ends_with("\r\n\r\n"));
        assert!(!request.0.contains("x-b") && !request.0.contains("ignored"), "{}", request.0);
    }

    #[test]
    fn interim_answers_are_passed_over() {
        assert_eq!(status(b"HTTP/1.1 204 x\r\n\r\n"), Ok(Some(204)));
        assert_eq!(status(b"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 503 y\r\n\r\n"), Ok(Some(503)));
        assert_eq!(status(b"HTTP/1.1 103 x\r\n\r\nHTT"), Ok(None));
        assert!(status(b"SSH-2.0\r\n").is_err());
    }
}
