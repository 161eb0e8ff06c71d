//! What answers of OTLP servers mean, without a server.

use http::HeaderValue;

use super::*;

fn answer(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Answer {
    Answer { status, headers: map(headers), body: Bytes::copy_from_slice(body) }
}

fn map(headers: &[(&'static str, &str)]) -> HeaderMap {
    headers
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn verdict_of_http(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Verdict {
    answer(status, headers, body).of_http(Signal::Traces)
}

#[test]
fn an_http_status_says_whether_to_try_again() {
    let taken = Verdict::Taken(0, String::new());
    assert_eq!(verdict_of_http(200, &[], b""), taken);
    // It has the batch, whatever else it says.
    assert_eq!(verdict_of_http(202, &[], b"<html>"), taken);
    let partial = Taken { partial: Some(Partial { rejected: 3, message: "no".into() }) };
    assert_eq!(
        verdict_of_http(200, &[], &partial.encode_to_vec()),
        Verdict::Taken(3, "3 of the traces were refused: no".into())
    );
    for (status, wait) in [(429, "7"), (502, "7"), (503, "7"), (504, "7")] {
        let later = verdict_of_http(status, &[("retry-after", wait)], b"");
        assert_eq!(later, Verdict::Later(Some(Duration::from_secs(7)), format!("it answers {status}")));
    }
    assert_eq!(
        verdict_of_http(503, &[("retry-after", "soon")], b""),
        Verdict::Later(None, "it answers 503".into())
    );
    let long = verdict_of_http(503, &[("retry-after", "999999999")], b"");
    assert_eq!(long, Verdict::Later(Some(LONGEST_WAIT), "it answers 503".into()));
    for status in [301, 400, 401, 404, 413, 500, 501] {
        assert_eq!(verdict_of_http(status, &[], b""), Verdict::Never(format!("it answers {status}")));
    }
}

#[test]
fn a_grpc_status_says_whether_to_try_again() {
    let of = |code: &str, details: &str| {
        let mut trailers = map(&[("grpc-status", code)]);
        if !details.is_empty() {
            trailers.insert("grpc-status-details-bin", HeaderValue::from_str(details).unwrap());
        }
        match answer(200, &[], b"").of_grpc(Signal::Traces, &trailers) {
            Verdict::Taken(0, _) => "taken".to_owned(),
            Verdict::Later(wait, _) => format!("later {:?}", wait.map(|wait| wait.as_millis())),
            Verdict::Never(_) => "never".to_owned(),
            other => panic!("{other:?}"),
        }
    };
    let info = RetryInfo { delay: Some(Span { seconds: 2, nanos: 500_000_000 }) };
    let any =
        Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
    let details = Status { details: vec![any] }.encode_to_vec();
    assert_eq!(of("0", ""), "taken");
    for code in ["1", "4", "10", "11", "14", "15"] {
        assert_eq!(of(code, ""), "later None", "{code}");
    }
    for encoded in [BASE64_NOPAD.encode(&details), BASE64.encode(&details)] {
        assert_eq!(of("14", &encoded), "later Some(2500)");
        assert_eq!(of("8", &encoded), "later Some(2500)");
    }
    assert_eq!((of("8", ""), of("8", "!?")), ("never".into(), "never".into()));
    for code in ["2", "3", "5", "7", "12", "13", "16", "99"] {
        assert_eq!(of(code, ""), "never", "{code}");
    }
    assert_eq!(of("x", ""), "later None");
}

#[test]
fn what_stands_between_is_understood_too() {
    let none = HeaderMap::new();
    let of = |status: u16, headers: &[(&'static str, &str)]| {
        answer(status, headers, b"").of_grpc(Signal::Logs, &none)
    };
    // Trailers only: the status is in the head.
    assert_eq!(of(200, &[("grpc-status", "12")]), Verdict::Never("it answers grpc-status 12".into()));
    assert_eq!(
        of(503, &[("retry-after", "1")]),
        Verdict::Later(Some(Duration::from_secs(1)), "it answers 503".into())
    );
    assert_eq!(of(404, &[]), Verdict::Never("it answers 404 without grpc-status".into()));
    assert!(matches!(of(200, &[]), Verdict::Later(None, _)));
}

#[test]
fn a_grpc_body_has_its_frame() {
    let collector = |protocol, gzip| Collector {
        host: "c".into(),
        port: 1,
        path: "/".into(),
        protocol,
        tls: None,
        headers: Vec::new(),
        gzip,
        timeout: Duration::from_secs(1),
    };
    let message = Bytes::from_static(b"0123456789");
    assert_eq!(body(&collector(Protocol::Http, false), message.clone()).unwrap(), message);
    let framed = body(&collector(Protocol::Grpc, false), message.clone()).unwrap();
    assert_eq!(&framed[..], b"\0\0\0\0\x0a0123456789");
    let framed = body(&collector(Protocol::Grpc, true), message.clone()).unwrap();
    assert_eq!((framed[0], framed[4] as usize), (1, framed.len() - 5));
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&framed[5..]), &mut plain).unwrap();
    assert_eq!(plain, message);
}
