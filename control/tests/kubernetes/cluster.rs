//! An API server of a cluster without machines: it keeps objects, and can be ill in all the ways that real ones are.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Channel, Full};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

type Body = BoxBody<Bytes, Infallible>;
/// Kind in the path, namespace, name.
type Key = (String, String, String);

/// A change by somebody else.
type Meanwhile = Box<dyn FnOnce(&mut Value) + Send>;

/// What the server does instead of its work.
#[derive(Debug, Clone, PartialEq)]
pub enum Illness {
    /// Our account may not do this: a verb and a resource.
    Denies(&'static str, &'static str),
    /// An answer without sense.
    Fails,
    /// No answer.
    Hangs,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    namespaces: BTreeSet<String>,
    version: u64,
    /// What watches are told: kind, version, event.
    events: Vec<(String, u64, Value)>,
    /// Watches from before this version are told to list again.
    forgotten: u64,
    illness: Option<Illness>,
    /// `PATCH /path`: requests that change something.
    changes: Vec<String>,
    reads: usize,
    /// Called before the next apply of this kind of object.
    meanwhile: Option<(String, Meanwhile)>,
}

/// The server.
pub struct Cluster {
    state: Arc<Mutex<State>>,
    /// Wakes watches.
    news: watch::Sender<u64>,
    pub address: SocketAddr,
    serving: Option<JoinHandle<()>>,
}

impl Cluster {
    pub async fn start() -> Cluster {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            namespaces: ["default", "production"].map(str::to_owned).into(),
            version: 100,
            ..State::default()
        };
        let mut cluster = Cluster {
            state: Arc::new(Mutex::new(state)),
            news: watch::Sender::new(0),
            address,
            serving: None,
        };
        cluster.serve(listener);
        cluster
    }

    fn serve(&mut self, listener: TcpListener) {
        let (state, news) = (self.state.clone(), self.news.clone());
        self.serving = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, news) = (state.clone(), news.clone());
                let service = service_fn(move |request| {
                    let (state, news) = (state.clone(), news.clone());
                    async move { Ok::<_, Infallible>(answer(&state, &news, request).await) }
                });
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        }));
    }

    /// Ends it, with all connections; what it keeps stays.
    pub fn stop(&mut self) {
        self.serving.take().unwrap().abort();
    }

    /// On the same port.
    pub async fn start_again(&mut self) {
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        };
        self.serve(listener);
    }

    /// As kubectl has it.
    pub fn kubeconfig(&self) -> String {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "fake", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "me", "user": { "token": "of-a-service-account" } }],
            "contexts": [{ "name": "fake", "context": { "cluster": "fake", "user": "me" } }],
            "current-context": "fake",
        });
        config.to_string()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn ill(&self, illness: Option<Illness>) {
        self.state().illness = illness;
        self.news.send_modify(|news| *news += 1);
    }

    /// Puts or changes an object, as somebody else does.
    pub fn put(&self, kind: &str, object: Value) {
        let mut state = self.state();
        state.put(kind, object);
        drop(state);
        self.news.send_modify(|news| *news += 1);
    }

    pub fn remove(&self, kind: &str, namespace: &str, name: &str) {
        self.state().remove(&(kind.into(), namespace.into(), name.into()));
        self.news.send_modify(|news| *news += 1);
    }

    /// Changes an object, as somebody else does.
    pub fn change(&self, kind: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.only(kind, name);
        change(&mut object);
        self.put(kind, object);
    }

    /// Somebody changes an object between our read and our write.
    pub fn meanwhile(&self, kind: &str, change: impl FnOnce(&mut Value) + Send + 'static) {
        self.state().meanwhile = Some((kind.into(), Box::new(change)));
    }

    /// Watches have to list again.
    pub fn forget(&self) {
        let mut state = self.state();
        state.forgotten = state.version + 1;
        drop(state);
        self.news.send_modify(|news| *news += 1);
    }

    pub fn of(&self, kind: &str) -> Vec<Value> {
        let state = self.state();
        state.objects.iter().filter(|((of, ..), _)| of == kind).map(|(_, object)| object.clone()).collect()
    }

    /// The only object of a kind whose name begins so.
    pub fn only(&self, kind: &str, name: &str) -> Value {
        let mut found: Vec<Value> = self.of(kind);
        found.retain(|object| object["metadata"]["name"].as_str().unwrap().starts_with(name));
        assert_eq!(found.len(), 1, "{kind} {name}: {found:#?}");
        found.remove(0)
    }

    pub fn changes(&self) -> Vec<String> {
        self.state().changes.clone()
    }

    /// Requests that change nothing, so far.
    pub fn reads(&self) -> usize {
        self.state().reads
    }
}

impl State {
    fn put(&mut self, kind: &str, mut object: Value) {
        self.version += 1;
        let key = key(kind, &object);
        let before = self.objects.get(&key);
        let generation = match before {
            None => 1,
            Some(before) => {
                let generation = before["metadata"]["generation"].as_i64().unwrap();
                generation + i64::from(before["spec"] != object["spec"])
            }
        };
        let uid =
            before.map_or_else(|| json!(format!("uid-{}", self.version)), |b| b["metadata"]["uid"].clone());
        object["metadata"]["uid"] = uid;
        object["metadata"]["generation"] = json!(generation);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let event = json!({ "type": if before.is_some() { "MODIFIED" } else { "ADDED" }, "object": object });
        self.events.push((kind.into(), self.version, event));
        self.objects.insert(key, object);
    }

    fn remove(&mut self, key: &Key) {
        let Some(mut object) = self.objects.remove(key) else { return };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let uid = object["metadata"]["uid"].clone();
        let event = json!({ "type": "DELETED", "object": object });
        self.events.push((key.0.clone(), self.version, event));
        // The garbage collector.
        let owned = |object: &Value| object["metadata"]["ownerReferences"][0]["uid"] == uid;
        let keys: Vec<Key> =
            self.objects.iter().filter(|(_, object)| owned(object)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.remove(key));
    }

    /// What is applied, on top of what others set.
    fn apply(&mut self, kind: &str, said: &Value) -> Result<Value, Box<Response<Body>>> {
        let key = key(kind, said);
        if !self.namespaces.contains(&key.1) {
            let why = format!("namespaces \"{}\" not found", key.1);
            return Err(Box::new(status(404, "NotFound", &why)));
        }
        if let Some((of, change)) = self.meanwhile.take() {
            match (of == kind, self.objects.get(&key).cloned()) {
                (true, Some(mut object)) => {
                    change(&mut object);
                    self.put(kind, object);
                }
                _ => self.meanwhile = Some((of, change)),
            }
        }
        let live = self.objects.get(&key).cloned();
        let wanted = &said["metadata"]["resourceVersion"];
        let now = live.as_ref().map(|live| live["metadata"]["resourceVersion"].clone());
        if wanted.is_string() && now.as_ref() != Some(wanted) {
            let why = format!(
                "Operation cannot be fulfilled on {kind} \"{}\": the object has been modified",
                key.2
            );
            return Err(Box::new(status(409, "Conflict", &why)));
        }
        let mut object = live.unwrap_or_else(|| json!({ "metadata": {} }));
        for (field, value) in said.as_object().unwrap().iter().filter(|(field, _)| *field != "metadata") {
            object[field] = value.clone();
        }
        for (field, value) in said["metadata"].as_object().unwrap() {
            match (field.as_str(), value) {
                ("resourceVersion", _) => {}
                ("labels" | "annotations", Value::Object(all)) => {
                    for (name, value) in all {
                        object["metadata"][field][name] = value.clone();
                    }
                }
                _ => object["metadata"][field] = value.clone(),
            }
        }
        self.put(kind, object);
        Ok(self.objects[&key].clone())
    }
}

fn key(kind: &str, object: &Value) -> Key {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (kind.into(), text("namespace"), text("name"))
}

fn full(value: &Value) -> Body {
    Full::new(Bytes::from(value.to_string())).boxed()
}

fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
    });
    let mut response = Response::new(full(&body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

async fn answer(
    state: &Arc<Mutex<State>>,
    news: &watch::Sender<u64>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(head.headers["authorization"], "Bearer of-a-service-account");
    let query: BTreeMap<String, String> =
        head.uri.query().unwrap_or_default().split('&').filter_map(pair).collect();
    let path = head.uri.path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let parts = if parts[0] == "api" { &parts[2..] } else { &parts[3..] };
    let (namespace, kind, name) = match *parts {
        ["namespaces", namespace, kind] => (Some(namespace), kind, None),
        ["namespaces", namespace, kind, name] => (Some(namespace), kind, Some(name)),
        [kind] => (None, kind, None),
        _ => panic!("{path}"),
    };
    let watches = query.get("watch").is_some_and(|watch| watch == "true");
    let verb = match (&head.method, name) {
        (&Method::GET, None) if watches => "watch",
        (&Method::GET, None) => "list",
        (&Method::GET, Some(_)) => "get",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, _) => "delete",
        other => panic!("{other:?}"),
    };
    let illness = state.lock().unwrap().illness.clone();
    match illness {
        Some(Illness::Hangs) => std::future::pending().await,
        Some(Illness::Fails) => return status(500, "InternalError", "etcdserver: leader changed"),
        Some(Illness::Denies(what, of)) if (what, of) == (verb, kind) => {
            let who = "system:serviceaccount:pilotfish-system:pilotfish";
            let where_ =
                namespace.map_or("at the cluster scope".into(), |n| format!("in the namespace \"{n}\""));
            let why =
                format!("{kind} is forbidden: User \"{who}\" cannot {verb} resource \"{kind}\" {where_}");
            return status(403, "Forbidden", &why);
        }
        _ => {}
    }
    if verb == "watch" {
        return watching(state.clone(), news, kind.to_owned(), namespace.map(str::to_owned), &query);
    }
    let mut state = state.lock().unwrap();
    let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    if matches!(verb, "patch" | "delete") {
        state.changes.push(format!("{} {path}", head.method));
    } else {
        state.reads += 1;
    }
    let slim = head
        .headers
        .get("accept")
        .is_some_and(|accept| accept.to_str().unwrap().contains("PartialObjectMetadata"));
    let key: Option<Key> = name.map(|name| (kind.into(), namespace.unwrap_or_default().into(), name.into()));
    match (verb, key) {
        ("get", Some(key)) => match state.objects.get(&key) {
            None => status(404, "NotFound", &format!("{kind} \"{}\" not found", key.2)),
            Some(object) if slim => Response::new(full(&json!({ "metadata": object["metadata"] }))),
            Some(object) => Response::new(full(object)),
        },
        ("list", None) => {
            assert_ne!(kind, "secrets", "nobody has to see all secrets");
            // Pages of two, whatever was asked for.
            let from: usize = query.get("continue").and_then(|from| from.parse().ok()).unwrap_or(0);
            let mut found: Vec<&Value> = state
                .objects
                .iter()
                .filter(|((of, space, _), object)| {
                    of == kind
                        && namespace.is_none_or(|namespace| namespace == space)
                        && chosen(object, &query)
                })
                .map(|(_, object)| object)
                .collect();
            let more = found.len() > from + 2;
            found = found.into_iter().skip(from).take(2).collect();
            let next = if more { (from + 2).to_string() } else { String::new() };
            let metadata = json!({ "resourceVersion": state.version.to_string(), "continue": next });
            Response::new(full(&json!({ "kind": "List", "metadata": metadata, "items": found })))
        }
        ("patch", Some(_)) => {
            assert_eq!(head.headers["content-type"], "application/apply-patch+yaml");
            assert_eq!(query["fieldManager"], "pilotfish");
            match state.apply(kind, &body) {
                Ok(object) => {
                    news.send_modify(|news| *news += 1);
                    Response::new(full(&object))
                }
                Err(refused) => *refused,
            }
        }
        ("delete", Some(key)) => {
            let Some(object) = state.objects.get(&key) else {
                return status(404, "NotFound", "it is not there");
            };
            for field in ["uid", "resourceVersion"] {
                if body["preconditions"][field] != object["metadata"][field] {
                    return status(
                        409,
                        "Conflict",
                        &format!("the {field} in the precondition does not match"),
                    );
                }
            }
            state.remove(&key);
            Response::new(full(&json!({ "kind": "Status", "status": "Success" })))
        }
        other => panic!("{other:?}"),
    }
}

fn pair(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    let value = value.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
    Some((key.into(), value))
}

fn chosen(object: &Value, query: &BTreeMap<String, String>) -> bool {
    let selector = query.get("labelSelector").map_or("", String::as_str);
    let mut wanted = selector.split(',').filter_map(|one| one.split_once('='));
    wanted.all(|(key, value)| object["metadata"]["labels"][key] == value)
}

/// Events after a version, until the server is ill.
fn watching(
    state: Arc<Mutex<State>>,
    news: &watch::Sender<u64>,
    kind: String,
    namespace: Option<String>,
    query: &BTreeMap<String, String>,
) -> Response<Body> {
    let mut after: u64 = query["resourceVersion"].parse().unwrap();
    let (mut tell, body) = Channel::<Bytes, Infallible>::new(16);
    let (mut news, query) = (news.subscribe(), query.clone());
    tokio::spawn(async move {
        loop {
            news.borrow_and_update();
            let mut lines = Vec::new();
            {
                let state = state.lock().unwrap();
                if state.illness.is_some() {
                    return;
                }
                if after < state.forgotten {
                    let gone =
                        json!({ "kind": "Status", "code": 410, "reason": "Expired", "message": "too old" });
                    lines.push(json!({ "type": "ERROR", "object": gone }));
                }
                let from = after;
                for (of, version, event) in state.events.iter().filter(|(_, version, _)| *version > from) {
                    let inside = namespace
                        .as_ref()
                        .is_none_or(|space| event["object"]["metadata"]["namespace"] == **space);
                    if *of == kind && inside && chosen(&event["object"], &query) {
                        lines.push(event.clone());
                    }
                    after = *version;
                }
                let metadata = json!({ "resourceVersion": after.to_string() });
                let mark = json!({ "kind": "Pod", "apiVersion": "v1", "metadata": metadata });
                lines.push(json!({ "type": "BOOKMARK", "object": mark }));
            }
            for line in lines {
                let frame = Frame::data(Bytes::from(format!("{line}\n")));
                if tell.send(frame).await.is_err() {
                    return;
                }
            }
            if news.changed().await.is_err() {
                return;
            }
        }
    });
    Response::new(body.map_err(|never| match never {}).boxed())
}
