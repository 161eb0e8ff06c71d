//! An authorizer that speaks HTTP, as Envoy's `ext_authz` asks it: the call's own method and path; 200 allows, 5xx is no answer, and
//! every other status is the refusal.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use pilotfish_filters::authorizer::{Http, Names};

use super::{Allowed, Answer, Check, Edit, Field, How, Refused};

/// The question.
///
/// # Errors
/// The call is one that cannot be asked about.
pub(super) fn question(origin: &str, http: &Http, check: &Check<'_>) -> Result<Request<Bytes>, String> {
    let head = check.head;
    if head.method == Method::CONNECT || !head.path_and_query().starts_with('/') {
        return Err("a call without a path cannot be asked about by HTTP".into());
    }
    let uri: Uri = format!("{origin}{}{}", http.path_prefix, head.path_and_query())
        .parse()
        .map_err(|_| "the call's path is none that can be asked about".to_owned())?;
    let mut request = Request::new(Bytes::copy_from_slice(check.body));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    for (name, value) in head.headers.iter() {
        let Ok(text) = std::str::from_utf8(name) else { continue };
        let always = ["authorization", "host"].iter().any(|known| text.eq_ignore_ascii_case(known))
            || (!check.body.is_empty() && text.eq_ignore_ascii_case("content-type"));
        let length = text.eq_ignore_ascii_case("content-length");
        if (always || http.include.has(text)) && !length {
            append(headers, text, value)?;
        }
    }
    for (name, value) in &http.add {
        headers.remove(name.as_str());
        append(headers, name, value.as_bytes())?;
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(check.body.len()));
    Ok(request)
}

fn append(headers: &mut HeaderMap, name: &str, value: &[u8]) -> Result<(), String> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
    let value = HeaderValue::from_bytes(value).map_err(|_| format!("the value of {name} cannot be sent"))?;
    headers.append(name, value);
    Ok(())
}

/// What it answers.
///
/// # Errors
/// It says that it cannot tell.
pub(super) fn answer(http: &Http, response: &Response<Bytes>) -> Result<Answer, String> {
    let status = response.status();
    if status == StatusCode::OK {
        let edit = |how: How| move |(name, value): Field| Edit { name, value, how };
        return Ok(Answer::Allowed(Allowed {
            to_upstream: taken(response, Some(&http.to_upstream)).map(edit(How::Overwrite)).collect(),
            to_downstream: taken(response, Some(&http.to_downstream_on_allow))
                .map(edit(How::Append))
                .collect(),
            ..Allowed::default()
        }));
    }
    if status.is_server_error() {
        return Err(format!("it answers {}", status.as_u16()));
    }
    Ok(Answer::Refused(Refused {
        status: status.as_u16(),
        headers: taken(response, http.to_downstream_on_deny.as_ref()).collect(),
        body: response.body().clone(),
    }))
}

fn taken<'a>(response: &'a Response<Bytes>, names: Option<&'a Names>) -> impl Iterator<Item = Field> + 'a {
    let wanted = move |name: &str| names.is_none_or(|names| names.has(name));
    let fields = response.headers().iter().filter(move |(name, _)| wanted(name.as_str()));
    fields.map(|(name, value)| (name.as_str().into(), value.as_bytes().into()))
}
