//! binding: what a path says of a call: methods of A2A by its HTTP and gRPC bindings, and the APIs of models, which have the model in the
//! body (OpenAI, Anthropic, Ollama) or in the path (Azure, Gemini, Vertex, Bedrock, KServe).
//!
//! Decisions hang on it, so keywords are compared as a server would that does not care about case, escapes or slashes at the end; what
//! such a server and a strict one would read differently is [`Path::Doubtful`].

use std::borrow::Cow;

use crate::normalize::loosest;

/// What a path says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// Nothing that is known here.
    Nothing,
    /// This.
    Said(Said),
    /// One thing to some servers and another to others.
    Doubtful,
}

/// What a call is by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A method of A2A, by its name in version 1.0 (one that is unknown: as it is written).
    A2a(Cow<'static, str>, Binding),
    /// A call of a model; with its name where the path has it.
    Model(Option<Box<str>>),
    /// Many calls at once, of models that other requests and files name.
    Batch,
    /// A list of models.
    Models,
    /// What there is to know of one model, or a change of it.
    OneModel(Box<str>),
}

/// How A2A is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// A2A 1.0, section 10.
    Grpc,
    /// A2A 1.0, section 11; the path is like nothing else.
    Http,
    /// The same by a path that other APIs may have (`/tasks/7`).
    Perhaps {
        /// It is where A2A has it by default: nothing is before it but a version.
        usual: bool,
    },
}

/// Reads a path. `method` is that of HTTP.
pub fn read(method: &str, path: &str) -> Path {
    let strict = said(method, &segments(path));
    let Some(loose) = loosest(path) else { return strict.map_or(Path::Nothing, Path::Said) };
    for reading in &loose.readings {
        match said(method, &segments(reading)) {
            same if same == strict => {}
            // Nothing but a host (`//message:send`): there the body says what is asked for, and may not say otherwise than the path.
            None if reading == "/" => {}
            // Lists are only shortened, whoever makes them.
            Some(list @ Said::Models) if strict.is_none() => return Path::Said(list),
            _ => return Path::Doubtful,
        }
    }
    strict.map_or(Path::Nothing, Path::Said)
}

/// The segments, decoded once, without empty ones at the end.
fn segments(path: &str) -> Vec<Cow<'_, str>> {
    let mut segments: Vec<_> = path.strip_prefix('/').unwrap_or(path).split('/').map(decoded).collect();
    while segments.last().is_some_and(|last| last.is_empty()) {
        segments.pop();
    }
    segments
}

/// Decoded once.
pub(crate) fn decoded(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes = segment.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let escape = match bytes.get(at..at + 3) {
            Some([b'%', high, low]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        decoded.push(escape.map_or(*byte, |(high, low)| (high * 16 + low) as u8));
        at += if escape.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned().into()
}

fn is(segment: &str, word: &str) -> bool {
    segment.eq_ignore_ascii_case(word)
}

fn said(method: &str, path: &[Cow<'_, str>]) -> Option<Said> {
    a2a(method, path).map(|(method, binding)| Said::A2a(method, binding)).or_else(|| model(method, path))
}

fn is_read(method: &str) -> bool {
    matches!(method, "GET" | "HEAD")
}

fn a2a(method: &str, path: &[Cow<'_, str>]) -> Option<(Cow<'static, str>, Binding)> {
    let (last, before) = path.split_last()?;
    let http = |name: &'static str| Some((Cow::Borrowed(name), Binding::Http));
    let configs = |at: usize| {
        path.len() >= at + 2
            && is(&path[path.len() - at], "pushNotificationConfigs")
            && is(&path[path.len() - at - 2], "tasks")
    };
    if let Some(service) = before.last()
        && service.rsplit('.').next().is_some_and(|name| is(name, "A2AService"))
    {
        return Some((by_grpc(last), Binding::Grpc));
    }
    if is(last, "message:send") {
        return http("SendMessage");
    }
    if is(last, "message:stream") {
        return http("SendStreamingMessage");
    }
    if is(last, "extendedAgentCard") {
        return http("GetExtendedAgentCard");
    }
    if path.len() >= 3 && configs(1) {
        return http(if is_read(method) {
            "ListTaskPushNotificationConfigs"
        } else {
            "CreateTaskPushNotificationConfig"
        });
    }
    if path.len() >= 4 && configs(2) {
        return http(match method {
            "DELETE" => "DeleteTaskPushNotificationConfig",
            _ if is_read(method) => "GetTaskPushNotificationConfig",
            _ => "CreateTaskPushNotificationConfig",
        });
    }
    let perhaps = |name: &'static str, base: &[Cow<'_, str>]| {
        let usual = match base {
            [] => true,
            [version] => is_version(version),
            _ => false,
        };
        is_read(method).then_some((Cow::Borrowed(name), Binding::Perhaps { usual }))
    };
    match before {
        [base @ .., tasks] if is(tasks, "tasks") => {
            let verb = last.rsplit_once(':').map_or("", |(_, verb)| verb);
            match verb {
                verb if is(verb, "cancel") => http("CancelTask"),
                verb if is(verb, "subscribe") => http("SubscribeToTask"),
                _ => perhaps("GetTask", base),
            }
        }
        [base @ .., version] if is(last, "card") && is_version(version) => {
            perhaps("GetExtendedAgentCard", base)
        }
        base if is(last, "tasks") => perhaps("ListTasks", base),
        _ => None,
    }
}

/// A2A's methods in gRPC by the names of version 1.0.
fn by_grpc(rpc: &str) -> Cow<'static, str> {
    const NAMES: [(&str, &str); 14] = [
        ("SendMessage", "SendMessage"),
        ("SendStreamingMessage", "SendStreamingMessage"),
        ("GetTask", "GetTask"),
        ("ListTasks", "ListTasks"),
        ("CancelTask", "CancelTask"),
        ("SubscribeToTask", "SubscribeToTask"),
        ("TaskSubscription", "SubscribeToTask"),
        ("CreateTaskPushNotificationConfig", "CreateTaskPushNotificationConfig"),
        ("GetTaskPushNotificationConfig", "GetTaskPushNotificationConfig"),
        ("ListTaskPushNotificationConfigs", "ListTaskPushNotificationConfigs"),
        ("ListTaskPushNotificationConfig", "ListTaskPushNotificationConfigs"),
        ("DeleteTaskPushNotificationConfig", "DeleteTaskPushNotificationConfig"),
        ("GetExtendedAgentCard", "GetExtendedAgentCard"),
        ("GetAgentCard", "GetExtendedAgentCard"),
    ];
    let known = NAMES.iter().find(|(own, _)| is(own, rpc));
    known.map_or_else(|| Cow::Owned(rpc.to_owned()), |(_, name)| Cow::Borrowed(*name))
}

/// `v1`, `v1beta`, `v2`.
fn is_version(segment: &str) -> bool {
    let [b'v' | b'V', digit, ..] = segment.as_bytes() else { return false };
    digit.is_ascii_digit()
}

/// Whether models' APIs begin here.
fn is_base(segment: &str) -> bool {
    is_version(segment) || is(segment, "openai")
}

fn model(method: &str, path: &[Cow<'_, str>]) -> Option<Said> {
    by_name(method, path).or_else(|| by_body(path).filter(|_| !is_read(method)))
}

/// Paths with the model in them.
fn by_name(method: &str, path: &[Cow<'_, str>]) -> Option<Said> {
    let call = |name: &str| Some(Said::Model(Some(name.into())));
    // Bedrock.
    const BEDROCK: [&str; 6] = [
        "invoke",
        "invoke-with-response-stream",
        "invoke-with-bidirectional-stream",
        "converse",
        "converse-stream",
        "count-tokens",
    ];
    if let [.., model, name, verb] = path
        && is(model, "model")
        && BEDROCK.iter().any(|own| is(verb, own))
    {
        return call(name);
    }
    for (at, word) in path.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| path.get(at));
        let rest = &path[at + 1..];
        // Azure, and OpenAI before `model` was in the body.
        let deployments = is(word, "deployments") && before.is_some_and(|before| is(before, "openai"));
        let engines = is(word, "engines") && before.is_some_and(|before| is_version(before));
        match rest {
            [name, _, ..] if deployments || engines => return call(name),
            [] if deployments || engines => return is_read(method).then_some(Said::Models),
            [] if is(word, "models") && before.is_some_and(|before| is_base(before)) => {
                return is_read(method).then_some(Said::Models);
            }
            // Ollama.
            [] if (is(word, "tags") || is(word, "ps")) && before.is_some_and(|before| is(before, "api")) => {
                return is_read(method).then_some(Said::Models);
            }
            [_, ..] if is(word, "models") || is(word, "tunedModels") => {
                let of_api = before.is_some_and(|before| is_base(before));
                if let Some(said) = within_models(method, rest, of_api) {
                    return Some(said);
                }
            }
            _ => {}
        }
    }
    None
}

/// What follows `models/`.
fn within_models(method: &str, rest: &[Cow<'_, str>], of_api: bool) -> Option<Said> {
    // What of a model is behind its name, which may itself have slashes.
    const PARTS: [&str; 11] = [
        "versions",
        "labels",
        "infer",
        "generate",
        "generate_stream",
        "permissions",
        "metadata",
        "config",
        "stats",
        "ready",
        "checkpoints",
    ];
    let part = rest.iter().skip(1).position(|part| PARTS.iter().any(|own| is(part, own)));
    let name = part.and_then(|at| rest.get(..=at)).unwrap_or(rest);
    let all = || name.join("/");
    if is_read(method) || method == "DELETE" {
        return of_api.then(|| Said::OneModel(all().into()));
    }
    let name = match all() {
        all if part.is_some() => all,
        all => match all.rsplit_once(':') {
            // Gemini, Vertex, TensorFlow: `NAME:generateContent`.
            Some((name, verb)) if verb.bytes().all(|byte| byte.is_ascii_alphabetic()) => name.to_owned(),
            _ if of_api => return Some(Said::OneModel(all.into())),
            _ => return None,
        },
    };
    Some(Said::Model(Some(name.into())))
}

/// Paths of calls whose body says which model is meant.
fn by_body(path: &[Cow<'_, str>]) -> Option<Said> {
    // Nothing else has these two after each other.
    const PAIRS: [[&str; 2]; 7] = [
        ["chat", "completions"],
        ["audio", "speech"],
        ["audio", "transcriptions"],
        ["audio", "translations"],
        ["images", "generations"],
        ["images", "edits"],
        ["images", "variations"],
    ];
    // Behind the beginning of an API.
    const WORDS: [&str; 7] =
        ["completions", "responses", "embeddings", "messages", "moderations", "rerank", "score"];
    if let [.., base, word] = path
        && is(word, "batches")
        && (is_base(base) || is(base, "messages"))
    {
        return Some(Said::Batch);
    }
    let ends = |pair: &[&str; 2]| matches!(path, [.., a, b] if is(a, pair[0]) && is(b, pair[1]));
    let is_call = PAIRS.iter().any(ends)
        || matches!(path, [.., base, word] if is_base(base) && WORDS.iter().any(|own| is(word, own)))
        || matches!(path, [.., messages, count] if is(messages, "messages") && is(count, "count_tokens"));
    is_call.then_some(Said::Model(None))
}

#[cfg(test)]
mod tests;
