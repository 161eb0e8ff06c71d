//! Which route a request takes: every kind of match, as Istio defines it, from YAML to the answer.

use std::net::SocketAddr;

use pilotfish_testkit::{H1, H2, Sidecar, h1, h2};

use crate::support::{ensure, run_table, sidecar, virtual_service};

/// Routes in order, each answered by the sidecar itself with the route's name: `match` blocks as YAML flow.
const ROUTES: [(&str, &str); 31] = [
    ("uri-exact", "[{ uri: { exact: /exact } }]"),
    ("uri-prefix", "[{ uri: { prefix: /prefix/ } }]"),
    ("uri-regex", "[{ uri: { regex: '/re/[0-9]+x?' } }]"),
    ("uri-ignore-case", "[{ uri: { exact: /CaSe }, ignoreUriCase: true }]"),
    ("uri-prefix-ignore-case", "[{ uri: { prefix: /LoOse }, ignoreUriCase: true }]"),
    ("method", "[{ method: { exact: PATCH } }]"),
    ("method-regex", "[{ method: { regex: 'X.*' } }]"),
    ("header-exact", "[{ headers: { h-exact: { exact: v } } }]"),
    ("header-prefix", "[{ headers: { h-prefix: { prefix: ab } } }]"),
    ("header-regex", "[{ headers: { h-regex: { regex: 'a+' } } }]"),
    ("header-present", "[{ headers: { h-present: {} } }]"),
    ("headers-all", "[{ headers: { h-one: { exact: '1' }, h-two: { exact: '2' } } }]"),
    ("header-capital", "[{ headers: { H-Capital: { exact: v } } }]"),
    ("without", "[{ uri: { prefix: /without }, withoutHeaders: { h-no: {} } }]"),
    ("without-value", "[{ uri: { prefix: /wvalue }, withoutHeaders: { h-no: { exact: v } } }]"),
    ("query-exact", "[{ queryParams: { q-exact: { exact: v } } }]"),
    ("query-prefix", "[{ queryParams: { q-prefix: { prefix: ab } } }]"),
    ("query-regex", "[{ queryParams: { q-regex: { regex: '[0-9]+' } } }]"),
    ("query-two", "[{ queryParams: { q-a: { exact: '1' }, q-b: { exact: '2' } } }]"),
    ("and", "[{ uri: { prefix: /and }, headers: { h-and: { exact: v } }, method: { exact: GET } }]"),
    ("or", "[{ uri: { exact: /or-one } }, { headers: { h-or: { exact: v } } }]"),
    ("scheme", "[{ uri: { prefix: /scheme }, scheme: { exact: http } }]"),
    ("scheme-other", "[{ uri: { prefix: /scheme }, scheme: { exact: https } }]"),
    ("authority", "[{ uri: { prefix: /auth }, authority: { prefix: match } }]"),
    ("port-other", "[{ uri: { prefix: /port }, port: 8080 }]"),
    ("port", "[{ uri: { prefix: /port }, port: 80 }]"),
    ("labels-other", "[{ uri: { prefix: /labels }, sourceLabels: { tier: silver } }]"),
    ("labels", "[{ uri: { prefix: /labels }, sourceLabels: { tier: gold } }]"),
    ("namespace-other", "[{ uri: { prefix: /namespace }, sourceNamespace: other }]"),
    ("namespace", "[{ uri: { prefix: /namespace }, sourceNamespace: default }]"),
    ("gateway-other", "[{ uri: { prefix: /gateway }, gateways: [edge] }]"),
];

/// Method, target, header lines, and the route that must answer.
#[rustfmt::skip]
const REQUESTS: [(&str, &str, &[&str], &str); 62] = [
    ("GET", "/exact", &[], "uri-exact"),
    ("GET", "/exact?x=y", &[], "uri-exact"),
    ("GET", "/exact/", &[], "default"),
    ("GET", "/exactly", &[], "default"),
    ("GET", "/Exact", &[], "default"),
    ("GET", "/prefix/", &[], "uri-prefix"),
    ("GET", "/prefix/a/b?c", &[], "uri-prefix"),
    ("GET", "/prefix", &[], "default"),
    ("GET", "/PREFIX/", &[], "default"),
    ("GET", "/re/12x", &[], "uri-regex"),
    ("GET", "/re/12", &[], "uri-regex"),
    ("GET", "/re/12xx", &[], "default"),
    ("GET", "/a/re/12", &[], "default"),
    ("GET", "/case", &[], "uri-ignore-case"),
    ("GET", "/CASE", &[], "uri-ignore-case"),
    ("GET", "/looser", &[], "uri-prefix-ignore-case"),
    ("PATCH", "/", &[], "method"),
    ("patch", "/", &[], "default"),
    ("XYZ", "/", &[], "method-regex"),
    ("GET", "/", &["h-exact: v"], "header-exact"),
    ("GET", "/", &["H-EXACT: v"], "header-exact"),
    ("GET", "/", &["h-exact: V"], "default"),
    ("GET", "/", &["h-exact: vv"], "default"),
    ("GET", "/", &["h-exact:"], "default"),
    ("GET", "/", &["h-prefix: abc"], "header-prefix"),
    ("GET", "/", &["h-prefix: xab"], "default"),
    ("GET", "/", &["h-regex: aaa"], "header-regex"),
    ("GET", "/", &["h-regex: aab"], "default"),
    ("GET", "/", &["h-present: x"], "header-present"),
    ("GET", "/", &["h-present:"], "header-present"),
    ("GET", "/", &["h-one: 1", "h-two: 2"], "headers-all"),
    ("GET", "/", &["h-one: 1"], "default"),
    ("GET", "/", &["h-capital: v"], "header-capital"),
    ("GET", "/without", &[], "without"),
    ("GET", "/without", &["h-no: x"], "default"),
    ("GET", "/wvalue", &["h-no: w"], "without-value"),
    ("GET", "/wvalue", &["h-no: v"], "default"),
    ("GET", "/?q-exact=v", &[], "query-exact"),
    ("GET", "/?a=b&q-exact=v&c", &[], "query-exact"),
    ("GET", "/?q-exact=vv", &[], "default"),
    ("GET", "/?Q-EXACT=v", &[], "default"),
    ("GET", "/?q-prefix=abc", &[], "query-prefix"),
    ("GET", "/?q-regex=123", &[], "query-regex"),
    ("GET", "/?q-regex=123a", &[], "default"),
    ("GET", "/?q-b=2&q-a=1", &[], "query-two"),
    ("GET", "/?q-b=2", &[], "default"),
    ("GET", "/and", &["h-and: v"], "and"),
    ("POST", "/and", &["h-and: v"], "default"),
    ("GET", "/and", &[], "default"),
    ("GET", "/or-one", &[], "or"),
    ("GET", "/any", &["h-or: v"], "or"),
    ("GET", "/scheme", &[], "scheme"),
    ("GET", "/auth", &[], "authority"),
    ("GET", "/port", &[], "port"),
    ("GET", "/labels", &[], "labels"),
    ("GET", "/namespace", &[], "namespace"),
    ("GET", "/gateway", &[], "default"),
    // The first of several that match wins.
    ("GET", "/exact", &["h-exact: v"], "uri-exact"),
    ("PATCH", "/", &["h-exact: v"], "method"),
    ("GET", "/", &["h-exact: v", "h-present: x"], "header-exact"),
    ("OPTIONS", "*", &[], "default"),
    ("GET", "http://match.test/exact", &[], "uri-exact"),
];

fn direct(name: &str) -> String {
    format!("  name: {name}\n  directResponse: {{ status: 200, body: {{ string: {name} }} }}\n")
}

fn yaml() -> String {
    let mut http: String =
        ROUTES.iter().map(|(name, when)| format!("- match: {when}\n{}", direct(name))).collect();
    http.push_str(&direct("default").replacen("  ", "- ", 1));
    let hosts = ["*.wild.test", "*.deep.wild.test", "exact.deep.wild.test", "short"];
    let more: String = hosts
        .iter()
        .map(|h| {
            virtual_service(
                &format!("v{}", h.len()),
                h,
                &direct(&format!("'host {h}'")).replacen("  ", "- ", 1),
            )
        })
        .collect();
    virtual_service("match", "match.test", &http) + &more
}

fn start() -> Sidecar {
    sidecar().yaml("routes.yaml", yaml()).args(&["--label", "tier=gold"]).start()
}

#[tokio::test]
async fn the_first_route_that_matches_answers() {
    let sidecar = start();
    let addr = sidecar.outbound;
    run_table(REQUESTS.to_vec(), |_, row| one(addr, row)).await;
}

async fn one(
    addr: SocketAddr,
    row: (&'static str, &'static str, &'static [&'static str], &'static str),
) -> Result<(), String> {
    let (method, target, headers, want) = row;
    let lines: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
    let request = format!("{method} {target} HTTP/1.1\r\nHost: match.test\r\n{lines}\r\n");
    let answer = H1::connect(addr).await.ask(request).await.map_err(|gone| format!("{row:?}: {gone}"))?;
    ensure(answer.text() == want, || format!("{row:?} got {} {:?}", answer.status(), answer.text()))?;
    if target.starts_with("http:") {
        return Ok(());
    }
    let mut client = H2::open(addr, &[]).await;
    let fields: Vec<(String, &str)> = headers
        .iter()
        .filter_map(|h| h.split_once(':'))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.trim()))
        .collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    client.send(&h2::headers(1, h2::request(method, "match.test", target, &fields), true)).await;
    match client.outcome(1, std::time::Duration::from_secs(5)).await {
        h2::Outcome::Answer(answer) => {
            ensure(answer.text() == want, || format!("h2 {row:?} got {} {:?}", answer.status, answer.text()))
        }
        other => Err(format!("h2 {row:?} got {other:?}")),
    }
}

#[tokio::test]
async fn hosts_are_found_exactly_then_by_the_longest_wildcard() {
    let sidecar = start();
    for (host, want) in [
        ("exact.deep.wild.test", "host exact.deep.wild.test"),
        ("EXACT.Deep.Wild.Test", "host exact.deep.wild.test"),
        ("exact.deep.wild.test:80", "host exact.deep.wild.test"),
        ("other.deep.wild.test", "host *.deep.wild.test"),
        ("a.b.deep.wild.test", "host *.deep.wild.test"),
        ("a.wild.test", "host *.wild.test"),
        ("short", "host short"),
        ("short.default", "host short"),
        ("short.default.svc.cluster.local", "host short"),
    ] {
        let answer = h1::get(sidecar.outbound, host, "/", &[]).await.unwrap();
        assert_eq!(answer.text(), want, "{host}");
    }
    for host in ["wild.test", "nobody.test", "short.other", "xshort", "deep.wild.testx"] {
        let answer = h1::get(sidecar.outbound, host, "/", &[]).await.unwrap();
        assert_eq!((answer.status(), answer.reason().as_str()), (404, "no-route"), "{host}");
    }
}
