//! What an authorizer's answer may be, and that nothing else is taken for one.

use http::{Response, StatusCode};
use pilotfish_filters::authorizer::{Http, Names};
use prost::Message;

use super::by_grpc::{
    BoolValue, CheckResponse, DeniedHttpResponse, HeaderPair, HeaderValueOption, HttpStatus, OkHttpResponse,
    Status,
};
use super::metadata::{Any, Kind, List, Struct};
use super::*;

fn option(key: &str, value: &str) -> HeaderValueOption {
    let pair = HeaderPair { key: key.into(), value: value.into(), raw_value: Vec::new() };
    HeaderValueOption { header: Some(pair), ..HeaderValueOption::default() }
}

fn framed(message: &CheckResponse) -> Vec<u8> {
    let message = message.encode_to_vec();
    [&[0], &(message.len() as u32).to_be_bytes()[..], &message].concat()
}

fn grpc(body: Vec<u8>) -> Result<Answer, String> {
    let response = Response::builder().header("grpc-status", "0").body(Bytes::from(body)).unwrap();
    by_grpc::answer(&response).and_then(checked)
}

#[test]
fn an_allowing_answer_changes_headers_but_not_those_of_the_mesh() {
    let mut appended = option("x-groups", "b");
    appended.append = Some(BoolValue { value: true });
    let ok = OkHttpResponse {
        headers: vec![option("x-user", "ann"), appended, option("host", "evil"), option(":path", "/evil")],
        headers_to_remove: vec!["x-secret".into(), "X-Pilotfish-Delegation".into()],
        response_headers_to_add: vec![option("x-seen", "1"), option("pilotfish-reason", "x")],
        ..OkHttpResponse::default()
    };
    let answer = CheckResponse { ok_response: Some(ok), ..CheckResponse::default() };
    let Ok(Answer::Allowed(allowed)) = grpc(framed(&answer)) else { panic!("{answer:?}") };
    let edits: Vec<_> = allowed.to_upstream.iter().map(|edit| (&*edit.name, edit.how)).collect();
    assert_eq!(edits, [("x-user", How::Overwrite), ("x-groups", How::Append)]);
    assert_eq!(allowed.remove, ["x-secret".into()]);
    let added = Edit { name: "x-seen".into(), value: Box::from(&b"1"[..]), how: How::Append };
    assert_eq!(allowed.to_downstream, [added]);
}

fn allowed(ok: OkHttpResponse) -> Result<Answer, String> {
    grpc(framed(&CheckResponse { ok_response: Some(ok), ..CheckResponse::default() }))
}

#[test]
fn what_happens_to_a_header_that_is_there_is_said_in_envoys_ways() {
    let mut rows = Vec::new();
    for (append, append_action, keep_empty_value, value) in [
        (None, 0, false, "a"),
        (None, 1, false, "a"),
        (None, 2, false, "a"),
        (None, 3, false, "a"),
        (Some(true), 3, false, "a"),
        (Some(false), 0, false, "a"),
        (None, 0, false, ""),
        (None, 1, false, ""),
        (None, 2, false, ""),
        (None, 2, true, ""),
    ] {
        let append = append.map(|value| BoolValue { value });
        let one = HeaderValueOption { append, append_action, keep_empty_value, ..option("x-a", value) };
        let ok = OkHttpResponse {
            headers: vec![one.clone()],
            response_headers_to_add: vec![one],
            ..OkHttpResponse::default()
        };
        let Ok(Answer::Allowed(made)) = allowed(ok) else { panic!("{append_action} {value}") };
        rows.push([made.to_upstream, made.to_downstream].map(|edits| edits.first().map(|edit| edit.how)));
    }
    use How::{AddIfAbsent, Append, Overwrite, OverwriteIfThere, Remove};
    let both = |how| [Some(how), Some(how)];
    // An empty value adds nothing, and takes away what it would have replaced, which a caller may have forged.
    let expected = [
        [Some(Overwrite), Some(Append)],
        both(AddIfAbsent),
        both(Overwrite),
        both(OverwriteIfThere),
        both(Append),
        both(Overwrite),
        [Some(Remove), None],
        [None, None],
        both(Remove),
        both(Overwrite),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn a_header_that_would_be_another_one_is_no_answer_but_a_refusal_stays_one() {
    for (key, value) in [
        ("x-a", "1\r\nx-pilotfish-origin: evil"),
        ("x-a", "1\nhost: evil"),
        ("x-a", "nul\0"),
        ("x-a\r\nhost", "evil"),
        ("x a", "1"),
        ("", "1"),
    ] {
        for response in [false, true] {
            let (mut headers, mut response_headers_to_add) =
                (vec![option("x-user", "ann"), option(key, value)], vec![]);
            if response {
                std::mem::swap(&mut headers, &mut response_headers_to_add);
            }
            let ok = OkHttpResponse { headers, response_headers_to_add, ..OkHttpResponse::default() };
            let why = allowed(ok).unwrap_err();
            assert!(why.contains("cannot be sent so") && !why.contains(['\r', '\n']), "{why:?}");
        }
        let denied = DeniedHttpResponse {
            headers: vec![option(key, value), option("x-why", "you")],
            ..DeniedHttpResponse::default()
        };
        let status = Some(Status { code: 7 });
        let answer = CheckResponse { status, denied_response: Some(denied), ..CheckResponse::default() };
        let Ok(Answer::Refused(refused)) = grpc(framed(&answer)) else { panic!("{key:?}") };
        assert_eq!(refused.headers, [("x-why".into(), Box::from(&b"you"[..]))]);
    }
    // Nor is a refusal none because it says too much.
    let denied = DeniedHttpResponse {
        headers: vec![option("x-a", &"a".repeat(40_000))],
        ..DeniedHttpResponse::default()
    };
    let status = Some(Status { code: 7 });
    let answer = CheckResponse { status, denied_response: Some(denied), ..CheckResponse::default() };
    let Ok(Answer::Refused(refused)) = grpc(framed(&answer)) else { panic!() };
    assert!(refused.headers.is_empty());
}

#[test]
fn metadata_are_json_of_a_bounded_length() {
    let one = |kind| Any { kind: Some(kind) };
    let all = |fields: Vec<(&str, Kind)>| Struct {
        fields: fields.into_iter().map(|(name, kind)| (name.to_owned(), one(kind))).collect(),
    };
    let list = List { values: vec![one(Kind::Text("a".into())), one(Kind::Bool(true)), Any { kind: None }] };
    let fields = vec![
        ("n", Kind::Number(3.0)),
        ("f", Kind::Number(0.5)),
        ("nan", Kind::Number(f64::NAN)),
        ("l", Kind::List(list)),
        ("s", Kind::Struct(all(vec![("t", Kind::Text("x".into())), ("z", Kind::Null(0))]))),
    ];
    let answer = CheckResponse { dynamic_metadata: Some(all(fields)), ..CheckResponse::default() };
    let Ok(Answer::Allowed(allowed)) = grpc(framed(&answer)) else { panic!("{answer:?}") };
    let expected = serde_json::json!({"n": 3, "f": 0.5, "nan": null, "l": ["a", true, null], "s": {"t": "x", "z": null}});
    assert_eq!(allowed.metadata.as_deref(), Some(&expected));
    let long = Some(all(vec![("a", Kind::Text("x".repeat(5000)))]));
    let answer = CheckResponse { dynamic_metadata: long, ..CheckResponse::default() };
    assert!(grpc(framed(&answer)).unwrap_err().contains("more than 4096 bytes"));
    // Deeper than anybody means.
    let mut deep = all(vec![]);
    for _ in 0..200 {
        deep = all(vec![("a", Kind::Struct(deep))]);
    }
    let answer = CheckResponse { dynamic_metadata: Some(deep), ..CheckResponse::default() };
    assert!(grpc(framed(&answer)).is_err());
}

#[test]
fn a_refusing_answer_is_the_authorizers_own() {
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: 401 }),
        headers: vec![option("www-authenticate", "Bearer")],
        body: "who are you?".into(),
    };
    let answer = CheckResponse {
        status: Some(Status { code: 16 }),
        denied_response: Some(denied),
        ..CheckResponse::default()
    };
    let Ok(Answer::Refused(refused)) = grpc(framed(&answer)) else { panic!("{answer:?}") };
    assert_eq!((refused.status, &refused.body[..]), (401, &b"who are you?"[..]));
    assert_eq!(refused.headers.len(), 1);
    for code in [0, 101, 77777, -5] {
        let denied =
            DeniedHttpResponse { status: Some(HttpStatus { code }), ..DeniedHttpResponse::default() };
        let answer = CheckResponse {
            status: Some(Status { code: 7 }),
            denied_response: Some(denied),
            ..CheckResponse::default()
        };
        let Ok(Answer::Refused(refused)) = grpc(framed(&answer)) else { panic!("{answer:?}") };
        assert_eq!(refused.status, 403);
    }
}

#[test]
fn whatever_is_no_answer_is_an_error() {
    let good = framed(&CheckResponse::default());
    assert_eq!(grpc(good.clone()), Ok(Answer::Allowed(Allowed::default())));
    for bad in
        [&b""[..], &good[..4], b"\x01\0\0\0\0", b"\0\0\0\0\x01", b"\0\0\0\0\x02\xff\xff", b"{\"allow\":true}"]
    {
        assert!(grpc(bad.to_vec()).is_err(), "{bad:?}");
    }
    let two = [good.clone(), good.clone()].concat();
    assert!(grpc(two).is_err());
    let status = |status: &str| {
        let response =
            Response::builder().header("grpc-status", status).body(Bytes::from(good.clone())).unwrap();
        by_grpc::answer(&response)
    };
    assert!(status("14").is_err() && status("").is_err() && status("00").is_err());
    let response = Response::builder().body(Bytes::from(good.clone())).unwrap();
    assert!(by_grpc::answer(&response).is_err(), "no status at all");
    let huge = OkHttpResponse {
        headers: vec![option("x", &"v".repeat(LONGEST_HEADERS))],
        ..OkHttpResponse::default()
    };
    assert!(grpc(framed(&CheckResponse { ok_response: Some(huge), ..CheckResponse::default() })).is_err());
}

#[test]
fn by_http_200_allows_5xx_is_no_answer_and_the_rest_refuses() {
    let http = Http { to_upstream: Names::new(["x-user*"]), ..Http::default() };
    let answer = |status: u16| {
        let response = Response::builder().status(status).header("x-user-id", "ann").header("x-other", "1");
        by_http::answer(&http, &response.body(Bytes::from_static(b"said")).unwrap())
    };
    let Ok(Answer::Allowed(allowed)) = answer(200) else { panic!() };
    assert_eq!(allowed.to_upstream.len(), 1);
    assert!(allowed.to_downstream.is_empty());
    for status in [201, 302, 401, 404] {
        let Ok(Answer::Refused(refused)) = answer(status) else { panic!("{status}") };
        assert_eq!((refused.status, &refused.body[..], refused.headers.len()), (status, &b"said"[..], 2));
    }
    assert!(answer(503).is_err() && answer(StatusCode::INTERNAL_SERVER_ERROR.as_u16()).is_err());
}
