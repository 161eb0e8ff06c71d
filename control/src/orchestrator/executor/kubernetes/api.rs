//! The cluster's API: lists, applies and deletes objects as plain JSON, through `kube`'s client.
//!
//! `kube` finds the cluster, speaks TLS and keeps credentials fresh. What it has of types is not used: an object here has the
//! few fields that we set, and each error becomes a sentence for a person.

use std::path::Path;
use std::time::Duration;

use data_encoding::HEXUPPER;
use futures_util::TryStreamExt;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

/// Our name among those that set fields of objects.
const MANAGER: &str = "pilotfish";
/// Objects in one piece of a list (kubectl's default).
const PAGE: u32 = 500;
/// The server ends a watch after so long, and we begin the next: a connection that is dead is noticed by then.
const WATCH: Duration = Duration::from_secs(60);
/// Only the metadata of objects: a Secret's content is none of our business.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Kinds that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `apps/v1`.
    Deployment,
    /// `v1`.
    Secret,
    /// `policy/v1`.
    DisruptionBudget,
    /// `v1`.
    Pod,
    /// `scheduling.k8s.io/v1`, without namespaces.
    PriorityClass,
}

impl Kind {
    const fn group(self) -> &'static str {
        match self {
            Kind::Deployment => "/apis/apps/v1",
            Kind::Secret | Kind::Pod => "/api/v1",
            Kind::DisruptionBudget => "/apis/policy/v1",
            Kind::PriorityClass => "/apis/scheduling.k8s.io/v1",
        }
    }

    /// As rules of roles name it.
    pub const fn plural(self) -> &'static str {
        match self {
            Kind::Deployment => "deployments",
            Kind::Secret => "secrets",
            Kind::DisruptionBudget => "poddisruptionbudgets",
            Kind::Pod => "pods",
            Kind::PriorityClass => "priorityclasses",
        }
    }
}

/// Why the API did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// Our account may not.
    Denied(String),
    /// There is no such object or namespace.
    Missing(String),
    /// It is not as expected any more.
    Conflict(String),
    /// What was watched from is too long ago.
    Gone,
    /// It cannot be reached, did not answer in time, or is ill.
    Away(String),
    /// It does not want it.
    Refused(String),
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ApiError::Denied(why) => write!(
                out,
                "the cluster does not allow it: {why} (deploy/kubernetes/executor-rbac.yaml has the permissions)"
            ),
            ApiError::Missing(why) | ApiError::Conflict(why) | ApiError::Refused(why) => out.write_str(why),
            ApiError::Gone => out.write_str("the cluster has forgotten what was watched from"),
            ApiError::Away(why) => write!(out, "the cluster's API {why}"),
        }
    }
}

/// What a list or a watch gives.
#[derive(Debug)]
pub enum Event {
    /// An object is there, or was changed.
    Is(Value),
    /// It is gone.
    Gone(Value),
    /// Nothing happened up to this version.
    Version(String),
}

/// The API of one cluster.
#[derive(Clone)]
pub struct Api {
    client: Client,
    patience: Duration,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Api")
    }
}

impl Api {
    /// Finds the cluster: by a file, else by the pod's service account, else by kubectl's usual file.
    ///
    /// # Errors
    /// There is none of them, or it cannot be used.
    pub async fn connect(kubeconfig: Option<&Path>, patience: Duration) -> Result<Api, String> {
        let mut config = match kubeconfig {
            Some(path) => {
                let unusable = |error: &dyn std::error::Error| {
                    format!("--kubeconfig {}: {}", path.display(), chain(error))
                };
                let read = Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(read, &options).await.map_err(|error| unusable(&error))?
            }
            None => match Config::incluster() {
                Ok(config) => config,
                Err(_) => Config::from_kubeconfig(&KubeConfigOptions::default()).await.map_err(|error| {
                    format!(
                        "no Kubernetes cluster: this is no pod with a service account, and kubectl's file cannot be \
                         used ({}); give --kubeconfig FILE",
                        chain(&error)
                    )
                })?,
            },
        };
        config.connect_timeout = Some(patience);
        // Everything is tried again by whoever asked.
        config.default_retry = false;
        let client = Client::try_from(config);
        client
            .map(|client| Api { client, patience })
            .map_err(|error| format!("no Kubernetes cluster: {}", chain(&error)))
    }

    /// Calls `each` with everything of a kind that has the labels, in one namespace or in all; gives the version to watch
    /// from. Pods are large and many: they are never all in memory.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        labels: &str,
        mut each: impl FnMut(Value) + Send,
    ) -> Result<String, ApiError> {
        let mut next = String::new();
        loop {
            let path = path(kind, namespace, None);
            let query =
                format!("?limit={PAGE}&labelSelector={}&continue={}", escaped(labels), escaped(&next));
            let mut listed = self.ask(Method::GET, &format!("{path}{query}"), None, &[]).await?;
            if let Some(Value::Array(items)) = listed.get_mut("items").map(Value::take) {
                items.into_iter().for_each(&mut each);
            }
            next = text(&listed, "/metadata/continue").unwrap_or_default().to_owned();
            if next.is_empty() {
                return Ok(text(&listed, "/metadata/resourceVersion").unwrap_or_default().to_owned());
            }
        }
    }

    /// The metadata of one object, if it is there.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn metadata(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Value>, ApiError> {
        let path = path(kind, Some(namespace), Some(name));
        match self.ask(Method::GET, &path, None, &[(ACCEPT, METADATA)]).await {
            Ok(object) => Ok(Some(object)),
            Err(ApiError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes an object be as it says (server-side apply): fields that we set before and that it does not have any more go,
    /// those of others stay. With a `metadata.resourceVersion` only if the object has not changed since.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn apply(&self, kind: Kind, object: &Value) -> Result<Value, ApiError> {
        let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
        let path = path(kind, namespace, name);
        let query = format!("?fieldManager={MANAGER}&force=true");
        // JSON is YAML.
        let headers = [(CONTENT_TYPE, "application/apply-patch+yaml")];
        self.ask(Method::PATCH, &format!("{path}{query}"), Some(object), &headers).await
    }

    /// Deletes an object as it was seen, and what it owns. One that is gone already is fine.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn delete(&self, kind: Kind, seen: &Value) -> Result<(), ApiError> {
        let path = path(kind, text(seen, "/metadata/namespace"), text(seen, "/metadata/name"));
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {
                "uid": text(seen, "/metadata/uid"),
                "resourceVersion": text(seen, "/metadata/resourceVersion"),
            },
        });
        let headers = [(CONTENT_TYPE, "application/json")];
        match self.ask(Method::DELETE, &path, Some(&options), &headers).await {
            Ok(_) | Err(ApiError::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Calls `seen` with each change after `version`, until the watch ends, as it does regularly.
    ///
    /// # Errors
    /// See [`ApiError`]; [`ApiError::Gone`]: list again.
    pub async fn watch(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        labels: &str,
        version: &str,
        mut seen: impl FnMut(Event) + Send,
    ) -> Result<(), ApiError> {
        let query = format!(
            "?watch=true&allowWatchBookmarks=true&timeoutSeconds={}&labelSelector={}&resourceVersion={}",
            WATCH.as_secs(),
            escaped(labels),
            escaped(version)
        );
        let request = build(Method::GET, &format!("{}{query}", path(kind, namespace, None)), None, &[])?;
        let watching = async {
            let events = self.client.request_events::<Value>(request).await.map_err(|error| read(&error))?;
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.try_next().await.map_err(|error| read(&error))? {
                use kube::core::WatchEvent;
                match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => seen(Event::Is(object)),
                    WatchEvent::Deleted(object) => seen(Event::Gone(object)),
                    WatchEvent::Bookmark(mark) => seen(Event::Version(mark.metadata.resource_version)),
                    WatchEvent::Error(status) if status.code == 410 => return Err(ApiError::Gone),
                    WatchEvent::Error(status) => return Err(ApiError::Refused(status.message.clone())),
                }
            }
            Ok(())
        };
        match tokio::time::timeout(WATCH + self.patience, watching).await {
            Ok(ended) => ended,
            Err(_) => Err(ApiError::Away("did not end a watch in time".into())),
        }
    }

    async fn ask(
        &self,
        method: Method,
        uri: &str,
        body: Option<&Value>,
        headers: &[(http::HeaderName, &str)],
    ) -> Result<Value, ApiError> {
        let request = build(method, uri, body, headers)?;
        match tokio::time::timeout(self.patience, self.client.request::<Value>(request)).await {
            Ok(answer) => answer.map_err(|error| read(&error)),
            Err(_) => Err(ApiError::Away(format!("gave no answer within {:?}", self.patience))),
        }
    }
}

/// A text within an object.
pub fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

/// An annotation; their names have slashes.
pub fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(name)?.as_str()
}

fn path(kind: Kind, namespace: Option<&str>, name: Option<&str>) -> String {
    let mut path = kind.group().to_owned();
    if let Some(namespace) = namespace {
        path.push_str("/namespaces/");
        path.push_str(&escaped(namespace));
    }
    path.push('/');
    path.push_str(kind.plural());
    if let Some(name) = name {
        path.push('/');
        path.push_str(&escaped(name));
    }
    path
}

/// For a URL.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => {
                out.push('%');
                out.push_str(&HEXUPPER.encode(&[byte]));
            }
        }
    }
    out
}

fn build(
    method: Method,
    uri: &str,
    body: Option<&Value>,
    headers: &[(http::HeaderName, &str)],
) -> Result<Request<Vec<u8>>, ApiError> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
    request.body(body).map_err(|error| ApiError::Refused(error.to_string()))
}

/// An error with what caused it, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let (mut said, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        let cause_said = cause.to_string();
        if !said.contains(&cause_said) {
            said.push_str(": ");
            said.push_str(&cause_said);
        }
        next = cause.source();
    }
    said
}

fn read(error: &kube::Error) -> ApiError {
    let status = match error {
        kube::Error::Api(status) => status,
        kube::Error::Service(why) => return ApiError::Away(format!("cannot be reached: {}", chain(&**why))),
        error => return ApiError::Away(format!("cannot be reached: {}", chain(error))),
    };
    // Of a server that is ill the message may be a page.
    let why: String = status.message.chars().take(500).collect();
    match status.code {
        401 | 403 => ApiError::Denied(why),
        404 => ApiError::Missing(why),
        409 => ApiError::Conflict(why),
        410 => ApiError::Gone,
        429 | 500.. => ApiError::Away(format!("answers {}: {why}", status.code)),
        _ => ApiError::Refused(why),
    }
}
