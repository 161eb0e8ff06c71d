//! What a route does with a request: rewrite, redirect, direct answer, header edits, delegate, timeout, and the refusals.

use std::time::{Duration, Instant};

use pilotfish_testkit::{Agent, H1, Nobody, Sidecar, h1};

use crate::support::{destination_rule, service, service_with, sidecar, virtual_service};

const ROUTES: &str = "
- match: [{ uri: { prefix: /old/ } }]
  rewrite: { uri: /new/ }
  route: [{ destination: { host: app.test } }]
- match: [{ uri: { prefix: /whole } }]
  rewrite: { uri: / }
  route: [{ destination: { host: app.test } }]
- match: [{ uri: { exact: /exact } }]
  rewrite: { uri: /other }
  route: [{ destination: { host: app.test } }]
- match: [{ uri: { prefix: /regex/ } }]
  rewrite: { uriRegexRewrite: { match: '^/regex/([^/]+)/(.*)$', rewrite: '/\\2/of/\\1' } }
  route: [{ destination: { host: app.test } }]
- match: [{ uri: { prefix: /authority } }]
  rewrite: { authority: inner.test }
  route: [{ destination: { host: app.test } }]
- match: [{ uri: { prefix: /redirect/plain } }]
  redirect: { uri: /target, authority: else.test }
- match: [{ uri: { prefix: /redirect/code } }]
  redirect: { redirectCode: 308, scheme: https, port: 8443 }
- match: [{ uri: { prefix: /redirect/prefix } }]
  redirect: { prefixRewrite: /there, redirectCode: 302 }
- match: [{ uri: { prefix: /direct } }]
  directResponse: { status: 418, body: { string: short and stout } }
  headers: { response: { set: { x-direct: 'yes' } } }
- match: [{ uri: { prefix: /bytes } }]
  directResponse: { status: 200, body: { bytes: aGVsbG8= } }
- match: [{ uri: { prefix: /empty } }]
  directResponse: { status: 204 }
- match: [{ uri: { prefix: /headers } }]
  headers:
    request: { set: { x-set: route }, add: { x-add: route }, remove: [x-remove] }
    response: { set: { x-agent: changed }, add: { x-more: '1' }, remove: [content-type] }
  route:
  - destination: { host: app.test }
    headers:
      request: { set: { x-dest: destination }, add: { x-add: destination } }
      response: { add: { x-more: '2' } }
- match: [{ uri: { prefix: /host-header } }]
  headers: { request: { set: { Host: set.test } } }
  route: [{ destination: { host: app.test } }]
- match: [{ uri: { prefix: /delay } }]
  timeout: 1.5s
  route: [{ destination: { host: app.test } }]
- match: [{ uri: { prefix: /stream } }]
  timeout: 1.5s
  route: [{ destination: { host: app.test } }]
- match: [{ uri: { prefix: /delegate } }]
  delegate: { name: inner, namespace: default }
- match: [{ uri: { prefix: /nowhere } }]
  route: [{ destination: { host: unknown.test } }]
- match: [{ uri: { prefix: /none } }]
  route: [{ destination: { host: none.test } }]
- match: [{ uri: { prefix: /subset-empty } }]
  route: [{ destination: { host: app.test, subset: v9 } }]
- match: [{ uri: { prefix: /refused } }]
  route: [{ destination: { host: refused.test } }]
- match: [{ uri: { prefix: /ok } }]
  route: [{ destination: { host: app.test } }]
";

const DELEGATED: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: inner, namespace: default }
spec:
  http:
  - match: [{ uri: { prefix: /delegate/a } }]
    directResponse: { status: 200, body: { string: inner a } }
  - match: [{ uri: { prefix: /outside } }]
    directResponse: { status: 200, body: { string: never } }
  - route: [{ destination: { host: app.test } }]
---
";

async fn start() -> (Sidecar, (Agent, Nobody)) {
    let app = Agent::start("app").await;
    let nobody = Nobody::new();
    let yaml = [
        virtual_service("routes", "front.test", ROUTES),
        DELEGATED.to_owned(),
        service("app.test", app.port()),
        service_with("none.test", "HTTP", &[]).replace("endpoints:\n", "endpoints: []\n"),
        service("refused.test", nobody.port()),
        destination_rule("app", "app.test", "subsets:\n- name: v9\n  labels: { version: v9 }"),
    ];
    (sidecar().yaml("routes.yaml", yaml.concat()).start(), (app, nobody))
}

#[tokio::test]
async fn rewrites_change_path_and_authority() {
    let (sidecar, _app) = start().await;
    for (target, path, authority) in [
        ("/old/a?b=c", "/new/a", "front.test"),
        ("/old/", "/new/", "front.test"),
        // The prefix is replaced as it is written, as Envoy does it.
        ("/whole/a", "//a", "front.test"),
        ("/whole", "/", "front.test"),
        ("/exact?x=1", "/other", "front.test"),
        ("/regex/a/b/c", "/b/c/of/a", "front.test"),
        ("/authority", "/authority", "inner.test"),
        ("/host-header", "/host-header", "set.test"),
        ("/ok/%2F%2f/x;y?z", "/ok/%2F%2f/x;y", "front.test"),
    ] {
        let answer = h1::get(sidecar.outbound, "front.test", target, &[]).await.unwrap();
        let seen = answer.json();
        assert_eq!(
            (seen["path"].as_str(), seen["headers"]["host"][0].as_str()),
            (Some(path), Some(authority)),
            "{target}"
        );
        let query = target.split_once('?').map(|(_, q)| q);
        assert_eq!(seen["query"].as_str(), query, "{target}");
    }
}

#[tokio::test]
async fn redirects_and_direct_answers_come_from_the_sidecar() {
    let (sidecar, (app, _)) = start().await;
    for (target, status, location) in [
        ("/redirect/plain?a=b", 301, "http://else.test/target?a=b"),
        ("/redirect/code/x?a=b", 308, "https://front.test:8443/redirect/code/x?a=b"),
        ("/redirect/prefix/x", 302, "http://front.test/there/x"),
    ] {
        let answer = h1::get(sidecar.outbound, "front.test", target, &[]).await.unwrap();
        assert_eq!(
            (answer.status(), answer.header("location").as_deref()),
            (status, Some(location)),
            "{target}"
        );
        assert_eq!(answer.reason(), "", "a redirect is no refusal");
    }
    let direct = h1::get(sidecar.outbound, "front.test", "/direct", &[]).await.unwrap();
    assert_eq!((direct.status(), direct.text().as_str()), (418, "short and stout"));
    assert_eq!(direct.header("x-direct").as_deref(), Some("yes"));
    assert_eq!(direct.reason(), "", "a direct answer is no refusal");
    let bytes = h1::get(sidecar.outbound, "front.test", "/bytes", &[]).await.unwrap();
    assert_eq!(bytes.text(), "hello");
    let mut client = H1::connect(sidecar.outbound).await;
    let posted = client
        .ask("POST /direct HTTP/1.1\r\nHost: front.test\r\nContent-Length: 5\r\n\r\nhello")
        .await
        .unwrap();
    assert_eq!(posted.status(), 418);
    assert_eq!(
        client.get("front.test", "/empty", &[]).await.unwrap().status(),
        204,
        "the content was read away"
    );
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn headers_are_edited_at_both_levels() {
    let (sidecar, _app) = start().await;
    let sent = ["x-set: client", "x-add: client", "x-remove: gone", "x-other: kept"];
    let answer = h1::get(sidecar.outbound, "front.test", "/headers", &sent).await.unwrap();
    let seen = &answer.json()["headers"];
    assert_eq!(seen["x-set"], serde_json::json!(["route"]));
    assert_eq!(seen["x-dest"], serde_json::json!(["destination"]));
    assert_eq!(seen["x-remove"], serde_json::Value::Null);
    assert_eq!(seen["x-other"], serde_json::json!(["kept"]));
    let adds: Vec<&str> = seen["x-add"].as_array().unwrap().iter().filter_map(|v| v.as_str()).collect();
    let adds = adds.join(",");
    assert!(adds.contains("client") && adds.contains("route") && adds.contains("destination"), "{adds}");
    assert_eq!(answer.header("x-agent").as_deref(), Some("changed"));
    assert_eq!(answer.header("content-type"), None);
    let more = answer.header("x-more").unwrap_or_default();
    assert!(more.contains('1') && more.contains('2'), "{more}");
}

#[tokio::test]
async fn a_delegate_takes_over_within_its_root() {
    let (sidecar, _app) = start().await;
    let inner = h1::get(sidecar.outbound, "front.test", "/delegate/a/b", &[]).await.unwrap();
    assert_eq!(inner.text(), "inner a");
    let rest = h1::get(sidecar.outbound, "front.test", "/delegate/b", &[]).await.unwrap();
    assert_eq!(rest.json()["agent"], "app");
    assert_eq!(h1::get(sidecar.outbound, "front.test", "/outside", &[]).await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_timeout_is_504_within_its_time() {
    let (sidecar, _app) = start().await;
    let begin = Instant::now();
    let answer = h1::get(sidecar.outbound, "front.test", "/delay/60000", &[]).await.unwrap();
    let took = begin.elapsed();
    assert_eq!((answer.status(), answer.reason().as_str()), (504, "timeout"));
    assert!(took >= Duration::from_millis(1490) && took < Duration::from_secs(15), "{took:?}");
    let quick = h1::get(sidecar.outbound, "front.test", "/delay/1", &[]).await.unwrap();
    assert_eq!(quick.status(), 200);
    // Istio's timeout covers the whole answer: a stream that lasts longer is cut, its client can tell.
    let cut = h1::get(sidecar.outbound, "front.test", "/stream/100/50", &[]).await;
    assert!(matches!(cut, Err(h1::Gone::Partial(_))), "{cut:?}");
}

#[tokio::test]
async fn refusals_say_why() {
    let (sidecar, _app) = start().await;
    for (host, target, status, reason) in [
        ("front.test", "/unmatched", 404, "no-route"),
        ("unheard-of.test", "/", 404, "no-route"),
        ("front.test", "/nowhere", 503, "no-cluster"),
        ("front.test", "/none", 503, "no-healthy-endpoint"),
        ("front.test", "/subset-empty", 503, "no-healthy-endpoint"),
        ("front.test", "/refused", 503, "connect-failed"),
    ] {
        let mut client = H1::connect(sidecar.outbound).await;
        let answer = client.get(host, target, &[]).await.unwrap();
        assert_eq!((answer.status(), answer.reason().as_str()), (status, reason), "{host}{target}");
        let again = client.get("front.test", "/ok", &[]).await.unwrap();
        assert_eq!(again.status(), 200, "the connection goes on after {reason}");
    }
    let own = h1::get(sidecar.outbound, "app.test", "/status/503", &[]).await.unwrap();
    assert_eq!(
        (own.status(), own.reason().as_str()),
        (503, ""),
        "an upstream's own error has no reason of ours"
    );
}
