//! What Istio's reference, concepts, tasks and integration tests say of policies, as a table: documents, calls, and whether each call is
//! let in. The facts are Istio's, the words are ours.
//!
//! A document is `name {spec}`, in `foo` unless the name says `namespace/name`. A call is `METHOD /target`, then what else there is to
//! it, each behind a `;`.

use super::*;

/// One subject: documents, and calls that are let in or not.
struct Case {
    what: &'static str,
    documents: &'static [&'static str],
    yes: &'static [&'static str],
    no: &'static [&'static str],
}

fn call(text: &str) -> Ask {
    let mut parts = text.split("; ");
    let mut asked = ask(parts.next().unwrap());
    for part in parts {
        let (name, value) = part.split_once(' ').unwrap_or_else(|| panic!("{text}"));
        let ip = || value.parse().unwrap_or_else(|_| panic!("{text}"));
        match name {
            "from" => asked = asked.from(value),
            "id" => asked.principal = Some(agent(value)),
            "host" => asked = asked.host(value),
            "ip" => asked.ip = ip(),
            "remote" => asked.remote_ip = Some(ip()),
            "at" => asked.arrived = Some(ip()),
            "port" => asked.destination = Some(SocketAddr::from(([127, 0, 0, 1], value.parse().unwrap()))),
            "sni" => asked.sni = Some(value.into()),
            "says" => asked = asked.claims(serde_json::from_str(value).unwrap_or_else(|_| panic!("{text}"))),
            header => {
                asked = asked.header(header.strip_suffix(':').unwrap_or_else(|| panic!("{text}")), value)
            }
        }
    }
    asked
}

fn document(text: &str) -> String {
    let (name, spec) = text.split_once(' ').unwrap();
    let (namespace, name) = name.split_once('/').unwrap_or(("foo", name));
    match name.strip_suffix('?') {
        // A dry run.
        Some(name) => policy(namespace, name, spec).replace(
            &format!("name: {name},"),
            &format!("name: {name}, annotations: {{istio.io/dry-run: 'true'}},"),
        ),
        None => policy(namespace, name, spec),
    }
}

#[test]
fn each_documented_policy_decides_as_documented() {
    let own = CompileOptions { labels: StringMap::from([("version".into(), "v1".into())]), ..options() };
    for case in CASES {
        let yaml: String = case.documents.iter().map(|text| document(text)).collect();
        let loaded = load_texts(&[("test.yaml", &yaml)], &Options::default());
        assert!(loaded.model.is_some(), "{}: check refuses it: {}", case.what, loaded.report);
        let plan = plan_for(&yaml, &own);
        for (calls, allowed) in [(case.yes, true), (case.no, false)] {
            for text in calls {
                let asked = call(text);
                assert_eq!(asked.allowed(&plan), allowed, "{}: {text}: {}", case.what, asked.decided(&plan));
            }
        }
    }
}

const CASES: &[Case] = &[
    // Concepts, "Authorization".
    Case {
        what: "no policy: whoever can reach it",
        documents: &[],
        yes: &["GET /", "DELETE /x; from dev/a"],
        no: &[],
    },
    Case {
        what: "two namespaces' callers by principal and namespace, at two versions, by a claim",
        documents: &[
            "p {selector: {matchLabels: {app: httpbin, version: v1}}, action: ALLOW, rules: [{from: [{source: {principals: ['cluster.local/ns/default/sa/curl']}}, {source: {namespaces: [dev]}}], to: [{operation: {methods: [GET]}}], when: [{key: 'request.auth.claims[iss]', values: ['https://accounts.google.com']}]}]}",
        ],
        yes: &[
            "GET /; from default/curl; says {\"iss\": \"https://accounts.google.com\", \"sub\": \"a\"}",
            "GET /; from dev/any; says {\"iss\": \"https://accounts.google.com\"}",
        ],
        no: &[
            "GET /; from default/curl",
            "GET /; from default/curl; says {\"iss\": \"https://example.com\"}",
            "POST /; from dev/any; says {\"iss\": \"https://accounts.google.com\"}",
            "GET /; from default/other; says {\"iss\": \"https://accounts.google.com\"}",
            "GET /; says {\"iss\": \"https://accounts.google.com\"}",
        ],
    },
    Case {
        what: "a denial of everybody outside of a namespace",
        documents: &[
            "p {selector: {matchLabels: {app: httpbin, version: v1}}, action: DENY, rules: [{from: [{source: {notNamespaces: [foo]}}]}]}",
        ],
        yes: &["GET /; from foo/a"],
        no: &["GET /; from bar/a", "GET /"],
    },
    Case {
        what: "a denial comes before a permission, whatever their order",
        documents: &[
            "a-allow {action: ALLOW, rules: [{}]}",
            "b-deny {action: DENY, rules: [{from: [{source: {principals: ['cluster.local/ns/foo/sa/a']}}]}]}",
        ],
        yes: &["GET /; from foo/b", "GET /"],
        no: &["GET /; from foo/a"],
    },
    Case {
        what: "paths by their beginning and their end",
        documents: &["p {action: ALLOW, rules: [{to: [{operation: {paths: ['/test/*', '*/info']}}]}]}"],
        yes: &["GET /test/", "GET /test/a/b", "GET /a/info", "GET /info", "GET /test/?x=/y", "GET /x/info?y"],
        no: &["GET /test", "GET /tests/", "GET /info/", "GET /a?x=/info"],
    },
    Case {
        what: "every path but one needs a token",
        documents: &[
            "p {action: ALLOW, rules: [{to: [{operation: {notPaths: [/healthz]}}], from: [{source: {requestPrincipals: ['*']}}]}]}",
        ],
        yes: &["GET /x; says {\"iss\": \"a\", \"sub\": \"b\"}"],
        no: &[
            "GET /x",
            "GET /healthz",
            "GET /healthz; says {\"iss\": \"a\", \"sub\": \"b\"}",
            "GET /x; says {\"iss\": \"a\"}",
        ],
    },
    Case {
        what: "a denial of whoever has no token, but on one path",
        documents: &[
            "p {action: DENY, rules: [{to: [{operation: {notPaths: [/healthz]}}], from: [{source: {notRequestPrincipals: ['*']}}]}]}",
        ],
        yes: &["GET /healthz", "GET /x; says {\"iss\": \"a\", \"sub\": \"b\"}"],
        no: &["GET /x", "GET /x; says {\"sub\": \"b\"}"],
    },
    Case { what: "nothing is allowed", documents: &["p {}"], yes: &[], no: &["GET /", "GET /; from foo/a"] },
    Case {
        what: "nothing is allowed: an action and no rules",
        documents: &["p {action: ALLOW}"],
        yes: &[],
        no: &["GET /; from foo/a"],
    },
    Case {
        what: "an empty list of rules is none",
        documents: &["p {rules: []}"],
        yes: &[],
        no: &["GET /; from foo/a"],
    },
    Case {
        what: "everything is denied",
        documents: &["p {action: DENY, rules: [{}]}"],
        yes: &[],
        no: &["GET /", "GET /; from foo/a"],
    },
    Case {
        what: "everything is allowed",
        documents: &["p {action: ALLOW, rules: [{}]}"],
        yes: &["GET /", "PUT /x; from a/b"],
        no: &[],
    },
    Case {
        what: "AUDIT without rules, or with them, decides nothing",
        documents: &["a {action: AUDIT, rules: [{}]}", "b {action: AUDIT}"],
        yes: &["GET /"],
        no: &[],
    },
    Case {
        what: "a policy of the root namespace and one of another",
        documents: &[
            "istio-system/p {selector: {matchLabels: {version: v1}}, action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}]}",
            "istio-system/q {selector: {matchLabels: {version: v2}}, action: DENY, rules: [{to: [{operation: {paths: [/b]}}]}]}",
            "bar/r {action: DENY, rules: [{}]}",
        ],
        yes: &["GET /b", "GET /"],
        no: &["GET /a"],
    },
    Case {
        what: "anybody who proved who it is, and anybody at all",
        documents: &[
            "p {action: ALLOW, rules: [{from: [{source: {principals: ['*']}}]}, {to: [{operation: {paths: [/public]}}]}]}",
        ],
        yes: &["GET /; from bar/x", "GET /public", "GET /; id other.example/ns/a/sa/b"],
        no: &["GET /"],
    },
    // Reference, `Source` and `Operation`: what is in one source or operation holds together, the lists hold one by one.
    Case {
        what: "a source of three parts",
        documents: &[
            "p {rules: [{from: [{source: {principals: ['*/sa/admin', '*/sa/dev'], namespaces: [prod, test], notIpBlocks: [203.0.113.4]}}]}]}",
        ],
        yes: &["GET /; from prod/admin", "GET /; from test/dev; ip 203.0.113.5"],
        no: &[
            "GET /; from prod/admin; ip 203.0.113.4",
            "GET /; from dev/admin",
            "GET /; from prod/other",
            "GET /; ip 203.0.113.5",
        ],
    },
    Case {
        what: "an operation of three parts",
        documents: &[
            "p {rules: [{to: [{operation: {hosts: ['*.example.com'], methods: [GET, HEAD], notPaths: ['/admin*']}}]}]}",
        ],
        yes: &[
            "GET /; host a.example.com",
            "HEAD /x; host A.EXAMPLE.COM",
            "GET /a/admin; host x.y.example.com",
        ],
        no: &[
            "GET /; host example.com",
            "POST /; host a.example.com",
            "GET /admin; host a.example.com",
            "GET /administrator; host a.example.com",
            "GET /; host a.example.com.evil",
            "GET /; host a.example.com:8080",
        ],
    },
    Case {
        what: "hosts with any port, as the best practices write them",
        documents: &["p {rules: [{to: [{operation: {hosts: ['a.example', 'a.example:*']}}]}]}"],
        yes: &["GET /; host a.example", "GET /; host a.example:80", "GET /; host A.Example:8443"],
        no: &["GET /; host b.example", "GET /; host a.example.b", "GET /; host xa.example"],
    },
    Case {
        what: "a denied host is denied with its port, and in any case",
        documents: &["p {action: DENY, rules: [{to: [{operation: {hosts: [a.example]}}]}]}"],
        yes: &["GET /; host b.example"],
        no: &[
            "GET /; host a.example",
            "GET /; host A.EXAMPLE",
            "GET /; host a.example:80",
            "GET /; host a.example.",
        ],
    },
    Case {
        what: "every host but one",
        documents: &["p {rules: [{to: [{operation: {notHosts: [deny.httpbin.com]}}]}]}"],
        yes: &["GET /; host allow.httpbin.com"],
        no: &["GET /; host deny.httpbin.com", "GET /; host DENY.httpbin.com"],
    },
    Case {
        what: "every method but one, every port but one",
        documents: &["p {rules: [{to: [{operation: {notMethods: [PUT], notPorts: ['81']}}]}]}"],
        yes: &["GET /; port 80", "POST /; port 8081"],
        no: &["PUT /; port 80", "GET /; port 81"],
    },
    Case {
        what: "methods by their beginning, their end and their presence",
        documents: &[
            "p {rules: [{to: [{operation: {methods: ['P*', '*D'], paths: [/a]}}]}, {to: [{operation: {methods: ['*'], paths: [/b]}}]}]}",
        ],
        yes: &["PUT /a", "POST /a", "HEAD /a", "GET /b"],
        no: &["GET /a", "DELETE /a"],
    },
    Case {
        what: "gRPC: the method is POST, the path its full name",
        documents: &[
            "p {rules: [{to: [{operation: {methods: [POST], paths: ['/package.service/method', '/other.v1.Tasks/*']}}]}]}",
        ],
        yes: &["POST /package.service/method", "POST /other.v1.Tasks/Get"],
        no: &["GET /package.service/method", "POST /package.service/methods", "POST /other.v2.Tasks/Get"],
    },
    // Tests, "PathTemplating" and "PathPrecedence"; reference, `Operation.paths`.
    Case {
        what: "templates",
        documents: &[
            "p {rules: [{to: [{operation: {paths: ['/allow/admin/{**}', '/foo/{*}/bar/{**}', '/store/{**}/cart', '/one/{*}', '/end/{**}/']}}]}]}",
        ],
        yes: &[
            "GET /allow/admin/",
            "GET /allow/admin/temp",
            "GET /allow/admin/temp.txt",
            "GET /allow/admin/foo/temp.txt",
            "GET /foo/buzz/bar/bat.txt",
            "GET /foo/buzz/bar/bat.temp.txt",
            "GET /foo/buzz/bar/bat/fuzz.txt",
            "GET /foo/buzz/bar/bat",
            "GET /store//cart",
            "GET /store/foo/cart",
            "GET /store/foo/bar/cart",
            "GET /one/bar",
            "GET /one/bar?x=/y",
            "GET /end/bar/",
            "GET /end/bar/baz.txt/",
            "GET /end//",
        ],
        no: &[
            "GET /allow/admin",
            "GET /allow/admin?param=value",
            "GET /allow",
            "GET /allow/user/",
            "GET /foo/bar/bat.txt",
            "GET /foo//bar/bat.txt",
            "GET /store/cart",
            "GET /one/bar/baz",
            "GET /one/",
            "GET /one",
            "GET /end/bar",
        ],
    },
    Case {
        what: "a denied path within an allowed beginning",
        documents: &[
            "d {action: DENY, rules: [{to: [{operation: {paths: [/allow/admin]}}]}]}",
            "a {action: ALLOW, rules: [{to: [{operation: {paths: ['/allow*']}}]}]}",
        ],
        yes: &["GET /allow", "GET /allow/x", "GET /allow/administrator"],
        no: &["GET /allow/admin", "GET /allow/admin?x=1", "GET /deny"],
    },
    // Conditions.
    Case {
        what: "a header that has to be so, one that must not, one that has to be there",
        documents: &[
            "p {rules: [{to: [{operation: {paths: [/is]}}], when: [{key: 'request.headers[X-Foo]', values: [foo]}]}, {to: [{operation: {paths: [/not]}}], when: [{key: 'request.headers[x-foo]', notValues: [bar]}]}, {to: [{operation: {paths: [/there]}}], when: [{key: 'request.headers[x-foo]', values: ['*']}]}, {to: [{operation: {paths: [/absent]}}], when: [{key: 'request.headers[x-foo]', notValues: ['*']}]}, {to: [{operation: {paths: [/agent]}}], when: [{key: 'request.headers[User-Agent]', values: ['Mozilla/*']}]}]}",
        ],
        yes: &[
            "GET /is; x-foo: foo",
            "GET /not; x-foo: foo",
            "GET /not",
            "GET /there; x-foo: any",
            "GET /there; x-foo: ",
            "GET /absent",
            "GET /agent; user-agent: Mozilla/5.0",
        ],
        no: &[
            "GET /is; x-foo: bar",
            "GET /is",
            "GET /is; x-foo: Foo",
            "GET /not; x-foo: bar",
            "GET /there",
            "GET /absent; x-foo: a",
            "GET /agent; user-agent: curl",
        ],
    },
    Case {
        what: "who and from where",
        documents: &[
            "p {rules: [{to: [{operation: {paths: [/ip]}}], when: [{key: source.ip, values: [10.1.2.3, 10.2.0.0/16], notValues: [10.2.3.4]}]}, {to: [{operation: {paths: [/remote]}}], when: [{key: remote.ip, values: [10.1.2.3]}]}, {to: [{operation: {paths: [/ns]}}], when: [{key: source.namespace, values: [default], notValues: [dev]}]}, {to: [{operation: {paths: [/not-ns]}}], when: [{key: source.namespace, notValues: [dev]}]}, {to: [{operation: {paths: [/who]}}], when: [{key: source.principal, values: [cluster.local/ns/default/sa/productpage]}]}, {to: [{operation: {paths: [/not-who]}}], when: [{key: source.principal, notValues: [cluster.local/ns/default/sa/productpage]}]}, {to: [{operation: {paths: [/account]}}], when: [{key: source.serviceAccount, values: [default/a, b]}]}, {to: [{operation: {paths: [/mesh]}}], when: [{key: source.trustDomain, values: [cluster.local, 'good*'], notValues: [goodbye]}]}]}",
        ],
        yes: &[
            "GET /ip; ip 10.1.2.3",
            "GET /ip; ip 10.2.9.9",
            "GET /ip; ip ::ffff:10.2.9.9",
            "GET /remote; ip 9.9.9.9; remote 10.1.2.3",
            "GET /remote; ip 10.1.2.3",
            "GET /ns; from default/x",
            "GET /not-ns; from prod/x",
            "GET /not-ns",
            "GET /who; from default/productpage",
            "GET /not-who; from default/x",
            "GET /not-who",
            "GET /account; from default/a",
            "GET /account; from foo/b",
            "GET /mesh; from a/b",
            "GET /mesh; id good.example/ns/a/sa/b",
        ],
        no: &[
            "GET /ip; ip 10.1.2.4",
            "GET /ip; ip 10.2.3.4",
            "GET /remote; ip 10.1.2.3; remote 9.9.9.9",
            "GET /ns; from dev/x",
            "GET /ns",
            "GET /not-ns; from dev/x",
            "GET /who; from default/productpages",
            "GET /who",
            "GET /not-who; from default/productpage",
            "GET /account; from foo/a",
            "GET /account; from default/b",
            "GET /account",
            "GET /mesh; id bad.example/ns/a/sa/b",
            "GET /mesh; id goodbye/ns/a/sa/b",
            "GET /mesh",
        ],
    },
    Case {
        what: "where to",
        documents: &[
            "p {rules: [{to: [{operation: {paths: [/ip]}}], when: [{key: destination.ip, values: [10.9.0.0/16]}]}, {to: [{operation: {paths: [/not-ip]}}], when: [{key: destination.ip, notValues: [10.9.0.1]}]}, {to: [{operation: {paths: [/port]}}], when: [{key: destination.port, values: ['80', '443']}]}, {to: [{operation: {paths: [/not-port]}}], when: [{key: destination.port, notValues: ['80']}]}, {to: [{operation: {paths: [/sni]}}], when: [{key: connection.sni, values: [www.example.com, '*.foo']}]}, {to: [{operation: {paths: [/not-sni]}}], when: [{key: connection.sni, notValues: ['*.foo']}]}]}",
        ],
        yes: &[
            "GET /ip; port 80; at 10.9.0.1",
            "GET /not-ip; port 80; at 10.9.0.2",
            "GET /port; port 443",
            "GET /not-port; port 8080",
            "GET /sni; sni www.example.com",
            "GET /sni; sni a.foo",
            "GET /not-sni; sni a.bar",
            "GET /not-sni",
        ],
        no: &[
            "GET /ip; port 80; at 10.8.0.1",
            "GET /not-ip; port 80; at 10.9.0.1",
            "GET /port; port 8080",
            "GET /not-port; port 80",
            "GET /sni; sni example.com",
            "GET /sni",
            "GET /not-sni; sni a.foo",
        ],
    },
    Case {
        what: "an address by which a workload is called is no way around a denial",
        documents: &["p {action: DENY, rules: [{when: [{key: destination.ip, values: [10.9.0.1]}]}]}"],
        yes: &["GET /; port 80; at 10.9.0.2"],
        no: &["GET /; port 80; at 10.9.0.1"],
    },
    // Tests, "JWT".
    Case {
        what: "what tokens say",
        documents: &[
            "p {rules: [{to: [{operation: {paths: [/token1]}}], from: [{source: {requestPrincipals: [issuer-1@istio.io/sub-1]}}]}, {to: [{operation: {paths: [/token2]}}], when: [{key: 'request.auth.claims[groups]', values: [group-2]}]}, {to: [{operation: {paths: [/any]}}], from: [{source: {requestPrincipals: ['*']}}]}, {to: [{operation: {paths: [/scope]}}], when: [{key: 'request.auth.claims[scope]', values: [append, write]}]}, {to: [{operation: {paths: [/nested]}}], when: [{key: 'request.auth.claims[nested][key1]', values: [valueA]}]}, {to: [{operation: {paths: [/nested-2]}}], when: [{key: 'request.auth.claims[nested][nested-2][key1]', values: [valueA]}]}, {to: [{operation: {paths: [/aud]}}], when: [{key: request.auth.audiences, values: [foo, 'bar*']}]}, {to: [{operation: {paths: [/azp]}}], when: [{key: request.auth.presenter, values: [123456789012.my-svc.com]}]}, {to: [{operation: {paths: [/who]}}], when: [{key: request.auth.principal, values: [accounts.my-svc.com/104958560606]}]}, {to: [{operation: {paths: [/mail]}}], when: [{key: 'request.auth.claims[email]', values: ['*@foo.com']}]}, {to: [{operation: {paths: [/not]}}], when: [{key: 'request.auth.claims[groups]', notValues: [group-2]}]}]}",
        ],
        yes: &[
            "GET /token1; says {\"iss\": \"issuer-1@istio.io\", \"sub\": \"sub-1\"}",
            "GET /token2; says {\"groups\": [\"group-1\", \"group-2\"]}",
            "GET /token2; says {\"groups\": \"group-2\"}",
            "GET /any; says {\"iss\": \"a\", \"sub\": \"b\"}",
            "GET /scope; says {\"scope\": \"read write\"}",
            "GET /scope; says {\"scope\": [\"append\"]}",
            "GET /nested; says {\"nested\": {\"key1\": [\"valueA\", \"valueB\"]}}",
            "GET /nested-2; says {\"nested\": {\"nested-2\": {\"key1\": \"valueA\"}}}",
            "GET /aud; says {\"aud\": \"foo\"}",
            "GET /aud; says {\"aud\": [\"x\", \"bare\"]}",
            "GET /azp; says {\"azp\": \"123456789012.my-svc.com\"}",
            "GET /who; says {\"iss\": \"accounts.my-svc.com\", \"sub\": \"104958560606\"}",
            "GET /mail; says {\"email\": \"a@foo.com\"}",
            "GET /not; says {\"groups\": [\"group-1\"]}",
            "GET /not",
        ],
        no: &[
            "GET /token1; says {\"iss\": \"issuer-2@istio.io\", \"sub\": \"sub-1\"}",
            "GET /token1",
            "GET /token2; says {\"groups\": [\"group-1\"]}",
            "GET /token2; says {\"groups\": \"group-1 group-2\"}",
            "GET /any",
            "GET /scope; says {\"scope\": \"read\"}",
            "GET /scope; says {\"scope\": \"writer\"}",
            "GET /nested; says {\"nested\": {\"key2\": [\"valueA\"]}}",
            "GET /nested; says {\"nested\": \"valueA\"}",
            "GET /nested-2; says {\"nested\": {\"key1\": \"valueA\"}}",
            "GET /aud; says {\"aud\": [\"x\"]}",
            "GET /azp; says {\"azp\": \"x\"}",
            "GET /who; says {\"iss\": \"accounts.my-svc.com\", \"sub\": \"1\"}",
            "GET /mail; says {\"email\": \"a@foo.com.evil\"}",
            "GET /not; says {\"groups\": [\"group-1\", \"group-2\"]}",
        ],
    },
    // RequestAuthentication, the reference's examples.
    Case {
        what: "an issuer for each host",
        documents: &[
            "p {selector: {matchLabels: {app: httpbin}}, rules: [{from: [{source: {requestPrincipals: ['issuer-foo/*']}}], to: [{operation: {hosts: [example.com]}}]}, {from: [{source: {requestPrincipals: ['issuer-bar/*']}}], to: [{operation: {hosts: [another-host.com]}}]}]}",
        ],
        yes: &[
            "GET /; host example.com; says {\"iss\": \"issuer-foo\", \"sub\": \"a\"}",
            "GET /; host another-host.com; says {\"iss\": \"issuer-bar\", \"sub\": \"a\"}",
        ],
        no: &[
            "GET /; host example.com; says {\"iss\": \"issuer-bar\", \"sub\": \"a\"}",
            "GET /; host example.com",
            "GET /; host another-host.com; says {\"iss\": \"issuer-foo\", \"sub\": \"a\"}",
        ],
    },
    Case {
        what: "a token on every path but one",
        documents: &[
            "p {rules: [{from: [{source: {requestPrincipals: ['*']}}]}, {to: [{operation: {paths: [/healthz]}}]}]}",
        ],
        yes: &["GET /healthz", "GET /x; says {\"iss\": \"a\", \"sub\": \"b\"}"],
        no: &["GET /x", "GET /healthz/"],
    },
    // Tasks, "TCP Traffic", for what is HTTP; other bytes do not get as far here.
    Case {
        what: "ports alone",
        documents: &["p {action: ALLOW, rules: [{to: [{operation: {ports: ['9000', '9001']}}]}]}"],
        yes: &["GET /; port 9000", "GET /; port 9001"],
        no: &["GET /; port 9002"],
    },
    Case {
        what: "a denied method of one port",
        documents: &["p {action: DENY, rules: [{to: [{operation: {methods: [GET], ports: ['9000']}}]}]}"],
        yes: &["GET /; port 9001", "POST /; port 9000"],
        no: &["GET /; port 9000"],
    },
    // Tasks, "Ingress Access Control".
    Case {
        what: "addresses that are allowed beside addresses that are denied",
        documents: &[
            "a {action: ALLOW, rules: [{from: [{source: {ipBlocks: [1.2.3.4, 5.6.7.0/24]}}, {source: {remoteIpBlocks: ['2001:db8::/32']}}]}]}",
            "d {action: DENY, rules: [{from: [{source: {remoteIpBlocks: [5.6.7.8], notIpBlocks: [5.6.7.9]}}]}]}",
        ],
        yes: &[
            "GET /; ip 1.2.3.4",
            "GET /; ip 5.6.7.1",
            "GET /; ip 9.9.9.9; remote 2001:db8::7",
            "GET /; ip 5.6.7.9; remote 5.6.7.8",
        ],
        no: &[
            "GET /; ip 1.2.3.5",
            "GET /; ip 5.6.7.8",
            "GET /; ip 1.2.3.4; remote 5.6.7.8",
            "GET /; ip 9.9.9.9; remote 2001:db9::7",
        ],
    },
    // Tasks, "Dry Run".
    Case {
        what: "a dry run decides nothing, beside what does",
        documents: &[
            "a? {action: ALLOW, rules: [{to: [{operation: {paths: [/allow]}}]}]}",
            "b {action: ALLOW, rules: [{to: [{operation: {paths: [/another]}}]}]}",
            "c? {action: DENY, rules: [{}]}",
        ],
        yes: &["GET /another"],
        no: &["GET /allow", "GET /"],
    },
    // Tasks, "Trust Domain Migration": `cluster.local` is whatever the mesh is called, a written name is that name.
    Case {
        what: "trust domains",
        documents: &[
            "p {rules: [{from: [{source: {principals: [old-td/ns/allow/sa/curl, cluster.local/ns/allow/sa/curl2]}}, {source: {trustDomains: [another.local]}}, {source: {notTrustDomains: ['mesh*', untrusted], principals: ['*/sa/x']}}]}]}",
        ],
        yes: &[
            "GET /; id old-td/ns/allow/sa/curl",
            "GET /; from allow/curl2",
            "GET /; id another.local/ns/a/sa/b",
            "GET /; id third/ns/a/sa/x",
        ],
        no: &[
            "GET /; from allow/curl",
            "GET /; id untrusted/ns/a/sa/x",
            "GET /; from a/x",
            "GET /; id old-td/ns/allow/sa/curl2",
        ],
    },
    Case {
        what: "ends of principals",
        documents: &[
            "p {rules: [{from: [{source: {principals: ['*bar/ns/foo/sa/one', '*/ns/foo/sa/two', 'third/ns/*']}}]}]}",
        ],
        yes: &[
            "GET /; id foobar/ns/foo/sa/one",
            "GET /; from foo/two",
            "GET /; id x/ns/foo/sa/two",
            "GET /; id third/ns/a/sa/b",
        ],
        no: &["GET /; id foobaz/ns/foo/sa/one", "GET /; from bar/two", "GET /; id athird/ns/a/sa/b"],
    },
    Case {
        what: "service accounts with and without their namespace, and not some",
        documents: &[
            "p {rules: [{from: [{source: {serviceAccounts: [my-ns/my-sa, sa-only], notServiceAccounts: [my-ns/not]}}]}, {from: [{source: {notServiceAccounts: [my-ns/not, my-ns/my-sa, other]}}], to: [{operation: {paths: [/b]}}]}]}",
        ],
        yes: &[
            "GET /; from my-ns/my-sa",
            "GET /; from foo/sa-only",
            "GET /b; from my-ns/x",
            "GET /b; from my-ns/other",
            "GET /b",
        ],
        no: &[
            "GET /; from my-ns/sa-only",
            "GET /; from my-ns/my-sa-too",
            "GET /b; from foo/other",
            "GET /b; from my-ns/not",
            "GET /",
        ],
    },
    // Nine policies for one workload, one of which is enough.
    Case {
        what: "policies add up",
        documents: &[
            "a {selector: {matchLabels: {app: httpbin, version: v1}}, rules: [{to: [{operation: {methods: [GET, POST], paths: [/m]}}]}]}",
            "b {selector: {matchLabels: {app: httpbin}}, rules: [{to: [{operation: {paths: [/v1, /v2]}}]}]}",
            "c {selector: {matchLabels: {version: v1}}, rules: [{to: [{operation: {hosts: [google.com, httpbin.org]}}]}]}",
            "d {rules: [{to: [{operation: {ports: ['80', '90']}}]}]}",
            "e {rules: [{from: [{source: {namespaces: [namespaces1, namespaces2]}}]}]}",
            "f {rules: [{when: [{key: 'request.headers[X-abc]', values: [abc1, abc2]}]}]}",
            "g {selector: {matchLabels: {version: v2}}, rules: [{}]}",
        ],
        yes: &[
            "POST /m",
            "PUT /v2",
            "PUT /x; host httpbin.org",
            "PUT /x; port 90",
            "PUT /x; from namespaces2/a",
            "PUT /x; x-abc: abc2",
        ],
        no: &["PUT /m", "PUT /x", "PUT /v3; from foo/a; x-abc: abc"],
    },
];
