//! What an authorizer's answer may be, and that nothing else is taken for one.

use http::{Response, StatusCode};
use pilotfish_filters::authorizer::{Http, Names};
use prost::Message;

use super::by_grpc::{
    BoolValue, CheckResponse, DeniedHttpResponse, HeaderPair, HeaderValueOption, HttpStatus, OkHttpResponse,
    Status,
};
use super::*;

fn option(key: &str, value: &str) -> HeaderValueOption {
    let pair = HeaderPair { key: key.into(), value: value.into(), raw_value: Vec::new() };
    HeaderValueOption { header: Some(pair), append: None, append_action: 0 }
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
    };
    let answer = CheckResponse { ok_response: Some(ok), ..CheckResponse::default() };
    let Ok(Answer::Allowed(allowed)) = grpc(framed(&answer)) else { panic!("{answer:?}") };
    let edits: Vec<_> = allowed.to_upstream.iter().map(|edit| (&*edit.name, edit.how)).collect();
    assert_eq!(edits, [("x-user", How::Overwrite), ("x-groups", How::Append)]);
    assert_eq!(allowed.remove, ["x-secret".into()]);
    assert_eq!(allowed.to_downstream, [("x-seen".into(), Box::from(&b"1"[..]))]);
}

#[test]
fn a_refusing_answer_is_the_authorizers_own() {
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: 401 }),
        headers: vec![option("www-authenticate", "Bearer")],
        body: "who are you?".into(),
    };
    let answer =
        CheckResponse { status: Some(Status { code: 16 }), denied_response: Some(denied), ok_response: None };
    let Ok(Answer::Refused(refused)) = grpc(framed(&answer)) else { panic!("{answer:?}") };
    assert_eq!((refused.status, &refused.body[..]), (401, &b"who are you?"[..]));
    assert_eq!(refused.headers.len(), 1);
    for code in [0, 101, 77777, -5] {
        let denied =
            DeniedHttpResponse { status: Some(HttpStatus { code }), ..DeniedHttpResponse::default() };
        let answer = CheckResponse {
            status: Some(Status { code: 7 }),
            denied_response: Some(denied),
            ok_response: None,
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
