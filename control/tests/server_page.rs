//! The page from outside: sessions, other pages, rebound names; and the probes.

use pilotfish_control::api::types::{Link, Token, Version};

use crate::support::{Http, Reply, Serve};

/// A browser's session.
struct Browser {
    cookie: String,
    key: String,
}

async fn link(serve: &Serve) -> String {
    let link: Link = Http::socket(serve).await.post("/v1/ui", &serde_json::json!({})).await.ok();
    let start = format!("http://{}", serve.local.unwrap());
    link.url.strip_prefix(&start).unwrap_or_else(|| panic!("{} not at {start}", link.url)).to_owned()
}

async fn page(serve: &Serve) -> Http {
    let address = serve.local.unwrap();
    Http::plain(address).await.with("host", &address.to_string())
}

async fn follow(serve: &Serve, path: &str) -> Reply {
    page(serve).await.get(path).await
}

async fn opened(serve: &Serve) -> Browser {
    let reply = follow(serve, &link(serve).await).await;
    assert_eq!(reply.status, 303);
    let cookie = reply.headers["set-cookie"].to_str().unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=28800"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let key = reply.headers["location"].to_str().unwrap().strip_prefix("/#").unwrap().to_owned();
    Browser { cookie: cookie.split(';').next().unwrap().to_owned(), key }
}

impl Browser {
    async fn at(&self, serve: &Serve) -> Http {
        page(serve).await.with("cookie", &self.cookie).with("x-pilotfish-session", &self.key)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_opens_a_session_once() {
    let serve = Serve::start(&[]);
    let path = link(&serve).await;
    assert_eq!(follow(&serve, &path).await.status, 303);
    assert_eq!(follow(&serve, &path).await.status, 401, "spent");
    assert_eq!(follow(&serve, "/login?code=guess").await.status, 401);
    let closed = follow(&serve, "/").await;
    assert_eq!(closed.status, 401);
    assert!(closed.text().contains("pilotfish ui"));
    let script = follow(&serve, "/js/main.js").await;
    assert!(script.status == 401 && !script.text().contains("import"), "{}", script.text());
    let browser = opened(&serve).await;
    let open = browser.at(&serve).await.get("/").await;
    assert!(open.status == 200 && open.text().contains("<title>Pilotfish</title>"));
    let _: Version = browser.at(&serve).await.get("/v1/version").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_need_cookie_and_key_of_one_session() {
    let serve = Serve::start(&[]);
    let (one, other) = (opened(&serve).await, opened(&serve).await);
    let token = serve.token.clone().unwrap();
    page(&serve).await.get("/v1/status").await.refused(401);
    page(&serve).await.bearer(&token).get("/v1/status").await.refused(401);
    page(&serve).await.with("cookie", &one.cookie).get("/v1/status").await.refused(401);
    page(&serve).await.with("x-pilotfish-session", &one.key).get("/v1/status").await.refused(401);
    let mixed = Browser { cookie: one.cookie.clone(), key: other.key.clone() };
    mixed.at(&serve).await.get("/v1/status").await.refused(401);
    assert_eq!(one.at(&serve).await.get("/v1/status").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_need_an_administrators_token_besides() {
    let serve = Serve::start(&[]);
    let (browser, token) = (opened(&serve).await, serve.token.clone().unwrap());
    let wanted = serde_json::json!({ "agent": "a", "namespace": "n", "ttl_seconds": 60, "uses": 1 });
    let origin = format!("http://{}", serve.local.unwrap());
    browser.at(&serve).await.with("origin", &origin).post("/v1/tokens", &wanted).await.refused(401);
    browser.at(&serve).await.bearer(&token).post("/v1/tokens", &wanted).await.refused(403);
    let mut http = browser.at(&serve).await.with("origin", &origin).bearer(&token);
    let _: Token = http.post("/v1/tokens", &wanted).await.ok();
    for path in ["/v1/join", "/v1/renew", "/v1/stream"] {
        http.post(path, &wanted).await.refused(403);
    }
}

/// A name that somebody else's DNS server points at 127.0.0.1 is not this page, even with the session's cookie.
#[tokio::test(flavor = "multi_thread")]
async fn rebound_names_are_refused() {
    let serve = Serve::start(&[]);
    let browser = opened(&serve).await;
    let address = serve.local.unwrap();
    let port = address.port();
    for host in [
        format!("evil.example:{port}"),
        "evil.example".into(),
        "127.0.0.1".into(),
        format!("127.0.0.1:{}", port ^ 1),
        format!("127.0.0.1.evil.example:{port}"),
        format!("localhost.:{port}"),
    ] {
        for path in ["/", "/page.css", "/login?code=x", "/v1/status"] {
            browser.at(&serve).await.with("host", &host).get(path).await.refused(421);
        }
    }
    browser.at(&serve).await.get("http://evil.example/v1/status").await.refused(421);
    let named = format!("localhost:{port}");
    assert_eq!(browser.at(&serve).await.with("host", &named).get("/v1/status").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_pages_requests_are_refused() {
    let serve = Serve::start(&[]);
    let browser = opened(&serve).await;
    let port = serve.local.unwrap().port();
    // Another port of this host is the same site to a browser, and sends the cookie.
    for (name, value) in [
        ("origin", "http://evil.example".to_owned()),
        ("origin", "null".into()),
        ("origin", format!("http://127.0.0.1:{}", port ^ 1)),
        ("origin", format!("https://127.0.0.1:{port}")),
        ("origin", format!("http://localhost:{port}")),
        ("sec-fetch-site", "cross-site".into()),
        ("sec-fetch-site", "same-site".into()),
    ] {
        for path in ["/", "/login?code=x", "/v1/status"] {
            browser.at(&serve).await.with(name, &value).get(path).await.refused(403);
        }
    }
    for value in ["same-origin", "none"] {
        assert_eq!(browser.at(&serve).await.with("sec-fetch-site", value).get("/").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_the_page_says_what_browsers_may_do_with_it() {
    let serve = Serve::start(&[]);
    let browser = opened(&serve).await;
    for path in ["/", "/js/main.js", "/js/api.js", "/page.css", "/v1/status", "/nothing", "/login"] {
        let reply = browser.at(&serve).await.get(path).await;
        let header =
            |name: &str| reply.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(header("cache-control"), "no-store", "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(header("x-frame-options"), "DENY", "{path}");
    }
    let html = browser.at(&serve).await.get("/").await.text();
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains(" style="), "{html}");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_show_no_secret_and_change_nothing() {
    let serve = Serve::start(&[]);
    let mut http = Http::plain(serve.status.unwrap()).await;
    assert_eq!(http.get("/live").await.text(), "live\n");
    assert_eq!(http.get("/ready").await.text(), "ready\n");
    let metrics = http.get("/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    for name in [
        "pilotfish_control_sidecars_connected 0",
        "pilotfish_control_documents_version 0",
        "pilotfish_control_store_duration_seconds_count{operation=\"batch\"}",
        "pilotfish_control_store_errors_total{operation=\"get\"} 0",
        "pilotfish_control_joins_total{result=\"refused\"} 0",
        "pilotfish_control_issuer_expires_seconds ",
        "process_resident_memory_bytes ",
    ] {
        assert!(metrics.text().contains(name), "no {name} in\n{}", metrics.text());
    }
    for path in ["/", "/v1/status", "/v1/version", "/metrics/"] {
        http.get(path).await.refused(404);
    }
    http.ask("POST", "/ready", "").await.refused(405);
}

#[tokio::test(flavor = "multi_thread")]
async fn page_and_probes_can_be_off() {
    let serve = Serve::start(&["--local", "off", "--status", "off"]);
    assert_eq!((serve.local, serve.status), (None, None));
    Http::socket(&serve).await.post("/v1/ui", &serde_json::json!({})).await.refused(404);
}
