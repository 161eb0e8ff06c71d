//! The documentation once more, as plainly as can be: Istio's reference of AuthorizationPolicy, and ours of what may be read in
//! several ways. For random policies and calls the index has to agree.

use std::net::{IpAddr, SocketAddr};

use pilotfish_config::model::{AuthorizationAction, AuthorizationPolicy, AuthorizationRule, Model, Values};
use pilotfish_config::{Options, load_texts};
use serde_json::{Value, json};

use super::*;
use crate::call::{Protocol, Understood};

const OWN: &str = "mesh.example";

/// What is decided, and by which policy and rule.
fn decide(model: &Model, asked: &Ask) -> (bool, String) {
    let mut policies: Vec<&AuthorizationPolicy> = model.authorization_policies.iter().collect();
    policies.sort_by_key(|policy| policy.meta.name().to_owned());
    let first = |action: AuthorizationAction| {
        policies.iter().filter(|policy| policy.action == action).find_map(|policy| {
            let refuses = action != AuthorizationAction::Allow;
            let at = policy.rules.iter().position(|rule| rule_matches(rule, asked, refuses))?;
            Some(format!("foo/{} rule {}", policy.meta.name(), at + 1))
        })
    };
    if let Some(by) = first(AuthorizationAction::Deny) {
        return (false, by);
    }
    let allowing = policies.iter().filter(|policy| policy.action == AuthorizationAction::Allow).count();
    match first(AuthorizationAction::Allow) {
        Some(by) => (true, by),
        None => (allowing == 0, String::new()),
    }
}

/// "A match occurs when at least one source, one operation and all conditions matches the request."
fn rule_matches(rule: &AuthorizationRule, asked: &Ask, refuses: bool) -> bool {
    let holds = |key: &str, values: &Values| {
        (values.any_of.is_empty() || values.any_of.iter().any(|value| one(key, value, asked, refuses)))
            && !values.none_of.iter().any(|value| one(key, value, asked, !refuses))
    };
    let from = |source: &pilotfish_config::model::AuthorizationSource| {
        holds("source.principal", &source.principals)
            && holds("request.auth.principal", &source.request_principals)
            && holds("source.namespace", &source.namespaces)
            && holds("source.serviceAccount", &source.service_accounts)
            && holds("source.ip", &source.ip_blocks)
            && holds("remote.ip", &source.remote_ip_blocks)
            && holds("source.trustDomain", &source.trust_domains)
    };
    let to = |operation: &pilotfish_config::model::AuthorizationOperation| {
        holds("hosts", &operation.hosts)
            && holds("destination.port", &operation.ports)
            && holds("methods", &operation.methods)
            && holds("paths", &operation.paths)
    };
    (rule.from.is_empty() || rule.from.iter().any(from))
        && (rule.to.is_empty() || rule.to.iter().any(to))
        && rule.when.iter().all(|condition| {
            // Several occurrences of a header: which values they match is asked of all values together where all have to match.
            if let Some(name) = condition.key.strip_prefix("request.headers[") {
                let name = name.trim_end_matches(']');
                let any = &condition.values.any_of;
                let none = &condition.values.none_of;
                return (any.is_empty() || header(name, any, asked, refuses))
                    && (none.is_empty() || !header(name, none, asked, !refuses));
            }
            holds(&condition.key, &condition.values)
        })
}

/// "Exact match, prefix match, suffix match, presence match."
fn text(pattern: &str, value: &str) -> bool {
    if pattern == "*" {
        return !value.is_empty();
    }
    if let Some(end) = pattern.strip_prefix('*') {
        return value.ends_with(end);
    }
    if let Some(start) = pattern.strip_suffix('*') {
        return value.starts_with(start);
    }
    pattern == value
}

/// Whether the header matches `values`: in any reading, or in every one.
fn header(name: &str, values: &[String], asked: &Ask, any: bool) -> bool {
    let occurrences: Vec<&str> =
        asked.head.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect();
    let fits = |value: &str| values.iter().any(|pattern| pattern == "*" || text(pattern, value));
    if !any {
        return !occurrences.is_empty() && occurrences.iter().all(|value| fits(value));
    }
    occurrences.iter().any(|value| fits(value) || value.split(',').any(|element| fits(element.trim())))
        || (occurrences.len() > 1 && fits(&occurrences.join(",")))
}

/// Whether one value of an attribute matches; `any`: one reading of several is enough.
fn one(key: &str, value: &str, asked: &Ask, any: bool) -> bool {
    let claims = asked.claims.as_ref();
    let claim = |name: &str| claims.and_then(|claims| claims.all.get(name));
    let principal = asked.principal.as_ref();
    let in_net = |ip: IpAddr| net(value, ip);
    let body = |fits: &dyn Fn(&Call) -> bool| match asked.call.body {
        Understood::Doubtful => any,
        _ => fits(&asked.call),
    };
    match key {
        "source.principal" => principal.is_some_and(|own| identity(value, &own.id)),
        "source.namespace" => {
            principal.and_then(|own| own.namespace.as_deref()).is_some_and(|own| text(value, own))
        }
        "source.trustDomain" => principal.is_some_and(|own| {
            text(value, &own.trust_domain) && value != "cluster.local"
                || value == "cluster.local" && &*own.trust_domain == OWN
        }),
        "source.serviceAccount" => {
            let (namespace, name) = value.split_once('/').unwrap_or(("foo", value));
            principal.is_some_and(|own| {
                own.namespace.as_deref() == Some(namespace) && own.name.as_deref() == Some(name)
            })
        }
        "source.ip" => in_net(asked.ip),
        "remote.ip" => in_net(asked.remote_ip.unwrap_or(asked.ip)),
        "destination.ip" => asked.destination.map_or(any, |address| in_net(address.ip())),
        "destination.port" => asked.destination.map_or(any, |address| value == address.port().to_string()),
        "connection.sni" => asked.sni.as_deref().is_some_and(|own| text(value, own)),
        "request.auth.principal" => {
            let own = |name: &str| claim(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (iss, sub) = (own("iss"), own("sub"));
            let fits = match value.rsplit_once('/') {
                Some((issuer, "*")) if value.starts_with('*') => text(issuer, &iss),
                Some((issuer, subject)) if value.starts_with('*') => text(issuer, &iss) && subject == sub,
                Some((issuer, subject)) if subject.len() > 1 && subject.starts_with('*') => {
                    issuer == iss && subject == sub
                }
                Some((issuer, subject)) => issuer == iss && text(subject, &sub),
                None if value.starts_with('*') => text(value, &sub),
                None => value.ends_with('*') && text(value, &iss),
            };
            let otherwise = |at: usize| text(&value[..at], &iss) && text(&value[at + 1..], &sub);
            let fits = fits || any && value.match_indices('/').any(|(at, _)| otherwise(at));
            claims.is_some() && !iss.is_empty() && !sub.is_empty() && fits
        }
        "request.auth.audiences" => {
            claims.is_some_and(|own| own.audiences.iter().any(|own| text(value, own)))
        }
        "request.auth.claims[groups]" => match claim("groups") {
            Some(Value::Array(list)) => list.iter().any(|own| text(value, own.as_str().unwrap_or_default())),
            Some(Value::String(own)) => text(value, own),
            Some(Value::Number(own)) => text(value, &own.to_string()),
            _ => false,
        },
        "methods" => {
            let own = &asked.head.method;
            text(value, own) || (any && text(value, &own.to_ascii_uppercase()))
        }
        "hosts" => {
            let own = asked.head.authority.to_lowercase();
            let (name, port) = own.split_once(':').unwrap_or((&own, ""));
            let bare = name.trim_end_matches('.');
            let port = port.trim_start_matches('0');
            let value = value.to_lowercase();
            let other =
                || text(&value, bare) || (!port.is_empty() && text(&value, &format!("{bare}:{port}")));
            text(&value, &own) || (any && other())
        }
        "paths" => paths(value, asked.head.target.split('?').next().unwrap_or_default(), any),
        "pilotfish.mcp.tool" => body(&|call| {
            call.protocol == Protocol::Mcp && call.tool.as_deref().is_some_and(|own| text(value, own))
        }),
        "pilotfish.protocol" => body(&|call| text(value, call.protocol.word())),
        "pilotfish.delegation.depth" => {
            let depth = asked.chain.as_ref().map_or(0, |chain| chain.agents.len()) as i64;
            let number = |digits: &str| digits.parse::<i64>().unwrap();
            if let Some(digits) = value.strip_prefix("<=") {
                depth <= number(digits)
            } else if let Some(digits) = value.strip_prefix('>') {
                depth > number(digits)
            } else {
                depth == number(value)
            }
        }
        "pilotfish.delegation.agents" => asked
            .chain
            .as_ref()
            .is_some_and(|chain| chain.agents.iter().any(|agent| identity(value, &agent.id))),
        other => panic!("{other} is not in the documentation of this test"),
    }
}

/// An identity is matched in any of its spellings: `sa` is `agent`, and `cluster.local` the mesh's own trust domain.
fn identity(pattern: &str, id: &str) -> bool {
    let mut spelled = vec![id.to_owned()];
    let parts: Vec<&str> = id.split('/').collect();
    if let [domain, "ns", namespace, _, name] = parts[..] {
        let domains = if domain == OWN { vec![OWN, "cluster.local"] } else { vec![domain] };
        for domain in domains {
            for word in ["sa", "agent"] {
                spelled.push(format!("{domain}/ns/{namespace}/{word}/{name}"));
            }
        }
    }
    // What is `cluster.local` in a policy is nobody else's.
    let foreign = id.starts_with("cluster.local/");
    spelled.iter().any(|id| text(pattern, id) && !(foreign && pattern.starts_with("cluster.local/")))
}

fn net(block: &str, ip: IpAddr) -> bool {
    let (address, bits) = block.split_once('/').unwrap_or((block, "32"));
    let (IpAddr::V4(ip), Ok(IpAddr::V4(address)), Ok(bits)) = (ip, address.parse(), bits.parse::<u32>())
    else {
        return false;
    };
    (0..bits).all(|bit| (u32::from(ip) >> (31 - bit)) & 1 == (u32::from(address) >> (31 - bit)) & 1)
}

/// A path as it is, and in every way in which an origin may read it.
fn paths(pattern: &str, path: &str, any: bool) -> bool {
    let own = path_matches(pattern, path);
    let mut strays = decoded(path) != without_parameters(&decoded(path));
    let mut others = Vec::new();
    for plain in [decoded(path), without_parameters(&decoded(path)), decoded(&without_parameters(path))] {
        for merge_first in [false, true] {
            let plain = if merge_first { merged(&plain) } else { plain.clone() };
            let (resolved, climbed) = resolved(&plain);
            strays |= climbed || resolved.starts_with("//");
            others.push(path_matches(pattern, &merged(&resolved)));
            // A URL without a scheme: what begins with two slashes begins with a host.
            if resolved.starts_with("//") {
                let behind = merged(&resolved)[1..].split_once('/').map(|(_, rest)| format!("/{rest}"));
                others.push(path_matches(pattern, &behind.unwrap_or("/".into())));
            }
        }
    }
    if any { own || others.contains(&true) } else { own && (!strays || !others.contains(&false)) }
}

/// Until no escape is left.
fn decoded(path: &str) -> String {
    let mut bytes = path.as_bytes().to_vec();
    let escape = |bytes: &[u8]| {
        let [b'%', digits @ ..] = bytes else { return None };
        digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
        u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).ok()
    };
    while let Some((at, byte)) = bytes.windows(3).enumerate().find_map(|(at, own)| Some((at, escape(own)?))) {
        bytes.splice(at..at + 3, [byte]);
    }
    String::from_utf8_lossy(&bytes).replace('\\', "/")
}

fn without_parameters(path: &str) -> String {
    let path = path.split('?').next().unwrap();
    path.split('/').map(|segment| segment.split(';').next().unwrap()).collect::<Vec<_>>().join("/")
}

fn merged(path: &str) -> String {
    let mut merged = path.to_owned();
    while merged.contains("//") {
        merged = merged.replace("//", "/");
    }
    merged
}

/// Without `.` and `..`, and whether it had a `..`.
fn resolved(path: &str) -> (String, bool) {
    let (mut kept, mut climbs): (Vec<&str>, bool) = (Vec::new(), false);
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        let last = at + 1 == segments.len();
        match *segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                climbs = true;
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    (format!("/{}", kept.join("/")), climbs)
}

/// `{*}` is one segment with at least a character, `{**}` anything.
fn path_matches(pattern: &str, path: &str) -> bool {
    if !pattern.contains('{') {
        return text(pattern, path);
    }
    fn go(pattern: &str, path: &str) -> bool {
        if let Some(rest) = pattern.strip_prefix("{**}") {
            return (0..=path.len()).any(|at| path.is_char_boundary(at) && go(rest, &path[at..]));
        }
        if let Some(rest) = pattern.strip_prefix("{*}") {
            let end = path.find('/').unwrap_or(path.len());
            return (1..=end).any(|at| path.is_char_boundary(at) && go(rest, &path[at..]));
        }
        match (pattern.chars().next(), path.chars().next()) {
            (None, None) => true,
            (Some(a), Some(b)) if a == b => go(&pattern[a.len_utf8()..], &path[b.len_utf8()..]),
            _ => false,
        }
    }
    go(pattern, path)
}

/// Random documents and calls over small alphabets, so that much of it meets.
struct Dice(fastrand::Rng);

impl Dice {
    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.0.usize(..all.len())].clone()
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.0.u32(..n) == 0
    }

    fn id(&mut self) -> String {
        let domain = self.of(&[OWN, OWN, OWN, "cluster.local", "other.example"]);
        let (namespace, word, name) = (
            self.of(&["a", "b", "sa", "ns"]),
            self.of(&["agent", "sa"]),
            self.of(&["x", "y", "sa", "agent"]),
        );
        format!("{domain}/ns/{namespace}/{word}/{name}")
    }

    /// A value that means something, or a part of it with a star.
    fn pattern(&mut self, value: &str) -> String {
        let cut = self.0.usize(..=value.len());
        match self.0.u32(..8) {
            0 if cut > 0 => format!("{}*", &value[..cut]),
            1 if cut < value.len() => format!("*{}", &value[cut..]),
            2 => "*".into(),
            _ => value.to_owned(),
        }
    }

    fn path(&mut self) -> String {
        let mut path = String::new();
        for _ in 0..self.0.usize(1..4) {
            path.push('/');
            path.push_str(self.of(&["a", "b", "admin", "api", "v1"]));
        }
        path
    }

    fn odd_path(&mut self) -> String {
        let mut path = String::from("/");
        for _ in 0..self.0.usize(0..6) {
            path.push_str(self.of(&[
                "a", "b", "admin", "/", "/", "..", ".", ";", "%2f", "%5C", "%2e", "%61", "\\", "api", "%25",
                "2f", "%3b", "%3F", "%2f%2F..",
            ]));
        }
        path
    }

    fn path_pattern(&mut self) -> String {
        if self.one_in(4) {
            return self
                .of(&["/a/{*}", "/{*}/b", "/api/{**}", "/a/{*}/{**}", "/{**}/admin", "/api/v1/{*}/a"])
                .to_owned();
        }
        let path = self.path();
        self.pattern(&path)
    }

    fn values(&mut self, one: &mut dyn FnMut(&mut Dice) -> String) -> Vec<String> {
        (0..self.0.usize(1..4)).map(|_| one(self)).collect()
    }

    /// `name: [values]` and now and then its `not` twin.
    fn field(
        &mut self,
        name: &str,
        one: &mut dyn FnMut(&mut Dice) -> String,
        object: &mut serde_json::Map<String, Value>,
    ) {
        let not = format!("not{}{}", name[..1].to_uppercase(), &name[1..]);
        match self.0.u32(..4) {
            0 => object.insert(not, json!(self.values(one))),
            1 => {
                object.insert(not, json!(self.values(one)));
                object.insert(name.into(), json!(self.values(one)))
            }
            _ => object.insert(name.into(), json!(self.values(one))),
        };
    }

    fn source(&mut self) -> Value {
        let mut source = serde_json::Map::new();
        match self.0.u32(..4) {
            0 => self.field(
                "serviceAccounts",
                &mut |dice| dice.of(&["x", "a/x", "b/sa", "y"]).into(),
                &mut source,
            ),
            1 => self.field(
                "namespaces",
                &mut |dice| {
                    let own = dice.of(&["a", "b", "sa", "ns"]);
                    dice.pattern(own)
                },
                &mut source,
            ),
            _ => self.field(
                "principals",
                &mut |dice| {
                    let id = dice.id();
                    dice.pattern(&id)
                },
                &mut source,
            ),
        }
        if self.one_in(4) {
            self.field(
                "ipBlocks",
                &mut |dice| {
                    dice.of(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "0.0.0.0/0", "11.0.0.1"]).into()
                },
                &mut source,
            );
        }
        if self.one_in(5) {
            self.field(
                "requestPrincipals",
                &mut |dice| dice.of(&["*", "iss/sub", "iss/*", "*/sub", "i*/sub"]).into(),
                &mut source,
            );
        }
        if self.one_in(6) {
            self.field(
                "trustDomains",
                &mut |dice| {
                    let own = dice.of(&[OWN, "cluster.local", "other.example"]);
                    if own == "cluster.local" { own.into() } else { dice.pattern(own) }
                },
                &mut source,
            );
        }
        source.into()
    }

    fn operation(&mut self) -> Value {
        let mut operation = serde_json::Map::new();
        self.field("paths", &mut Dice::path_pattern, &mut operation);
        if self.one_in(2) {
            self.field(
                "methods",
                &mut |dice| dice.of(&["GET", "POST", "PUT", "P*", "*T", "*"]).into(),
                &mut operation,
            );
        }
        if self.one_in(4) {
            self.field(
                "hosts",
                &mut |dice| {
                    let own = dice.of(&["h.test", "H.test:80", "g.test"]);
                    dice.pattern(own)
                },
                &mut operation,
            );
        }
        if self.one_in(6) {
            self.field("ports", &mut |dice| dice.of(&["80", "8000"]).into(), &mut operation);
        }
        operation.into()
    }

    fn condition(&mut self) -> Value {
        let key = self.of(&[
            "request.headers[x-h]",
            "source.principal",
            "pilotfish.mcp.tool",
            "pilotfish.protocol",
            "request.auth.claims[groups]",
            "connection.sni",
            "remote.ip",
            "pilotfish.delegation.depth",
            "pilotfish.delegation.agents",
            "request.auth.audiences",
            "destination.ip",
        ]);
        let mut value = |dice: &mut Dice| match key {
            "source.principal" | "pilotfish.delegation.agents" => {
                let id = dice.id();
                dice.pattern(&id)
            }
            "remote.ip" | "destination.ip" => dice.of(&["10.0.0.0/8", "10.1.2.3", "11.0.0.0/8"]).into(),
            "pilotfish.delegation.depth" => dice.of(&["0", "<=1", ">0", ">1"]).into(),
            "pilotfish.protocol" => dice.of(&["mcp", "http", "m*", "*"]).into(),
            _ => {
                let own = dice.of(&["u", "v", "uv", "u,v"]);
                dice.pattern(own)
            }
        };
        let mut condition = serde_json::Map::new();
        condition.insert("key".into(), json!(key));
        if self.one_in(3) {
            condition.insert("notValues".into(), json!(self.values(&mut value)));
        }
        if !condition.contains_key("notValues") || self.one_in(3) {
            condition.insert("values".into(), json!(self.values(&mut value)));
        }
        condition.into()
    }

    fn rule(&mut self) -> Value {
        let mut rule = serde_json::Map::new();
        if !self.one_in(4) {
            let all: Vec<Value> = (0..self.0.usize(1..3)).map(|_| json!({"source": self.source()})).collect();
            rule.insert("from".into(), json!(all));
        }
        if !self.one_in(4) {
            let all: Vec<Value> =
                (0..self.0.usize(1..3)).map(|_| json!({"operation": self.operation()})).collect();
            rule.insert("to".into(), json!(all));
        }
        if self.one_in(2) {
            let all: Vec<Value> = (0..self.0.usize(1..3)).map(|_| self.condition()).collect();
            rule.insert("when".into(), json!(all));
        }
        rule.into()
    }

    fn documents(&mut self) -> String {
        let one = |dice: &mut Dice, at: usize| {
            let rules: Vec<Value> = (0..dice.0.usize(1..8)).map(|_| dice.rule()).collect();
            let action = dice.of(&["ALLOW", "ALLOW", "DENY"]);
            policy("foo", &format!("p{at:02}"), &json!({"action": action, "rules": rules}).to_string())
        };
        (0..self.0.usize(1..5)).map(|at| one(self, at)).collect()
    }

    fn ask(&mut self) -> Ask {
        let method = self.of(&["GET", "GET", "POST", "PUT", "post", "get"]);
        let path = if self.one_in(3) { self.odd_path() } else { self.path() };
        let query = if self.one_in(4) { "?a=/admin" } else { "" };
        let mut asked = ask(&format!("{method} {path}{query}"));
        asked = asked.host(self.of(&[
            "h.test",
            "H.TEST",
            "h.test:80",
            "h.test.",
            "h.test.:80",
            "h.test:080",
            "g.test:81",
            "other",
        ]));
        for _ in 0..self.0.usize(0..3) {
            asked = asked.header("x-h", self.of(&["u", "v", "uv", "u,v", "v, u", ""]));
        }
        if !self.one_in(4) {
            asked.principal = Some(agent(&self.id()));
        }
        if self.one_in(2) {
            let groups = self.of(&[json!(["u", "x"]), json!("v"), json!(7), json!({"u": 1})]);
            asked = asked.claims(json!({"iss": self.of(&["iss", "iss/more", ""]), "sub": self.of(&["sub", "other", ""]), "aud": [self.of(&["u", "v"])], "groups": groups}));
        }
        asked.ip = self.of(&["10.1.2.3", "10.9.9.9", "11.0.0.1"]).parse().unwrap();
        asked.remote_ip =
            self.of(&[None, Some(IpAddr::from([11, 0, 0, 1])), Some(IpAddr::from([10, 1, 2, 3]))]);
        asked.destination = self.of(&[
            None,
            Some(SocketAddr::from(([10, 1, 2, 3], 80))),
            Some(SocketAddr::from(([12, 0, 0, 1], 8000))),
        ]);
        asked.sni = self.of(&[None, Some("u".to_owned()), Some("uv".to_owned())]);
        if self.one_in(2) {
            let tool = self.of(&["u", "v", "uv"]).into();
            let body = self.of(&[Understood::Whole, Understood::Doubtful]);
            asked.call = Call { protocol: Protocol::Mcp, tool: Some(tool), body, ..Call::default() };
        }
        if self.one_in(2) {
            let agents = (0..self.0.usize(0..3)).map(|_| agent(&self.id())).collect();
            asked.chain = Some(Chain { agents, ..Chain::default() });
        }
        asked
    }
}

#[test]
fn the_index_decides_as_the_documentation_says() {
    let (mut allowed, mut refused, mut by_rule) = (0, 0, 0);
    for seed in 0..600 {
        let mut dice = Dice(fastrand::Rng::with_seed(seed));
        let yaml = dice.documents();
        let loaded = load_texts(&[("test.yaml", &*yaml)], &Options::default());
        let model = loaded.model.unwrap_or_else(|| panic!("seed {seed}: {}\n{yaml}", loaded.report));
        let plan =
            compile(&model, &options(), &Resolved::default(), &State::with_seed(1), Micros(0)).unwrap();
        for number in 0..60 {
            let asked = dice.ask();
            let (allows, by) = decide(&model, &asked);
            let rules = plan.caller_rules(asked.principal.as_ref());
            for rules in [None, rules.as_ref()] {
                asked.with_rules(rules, |asking| {
                    let judgement = plan.authorize(asking);
                    let own = (judgement.deny.is_none(), &*judgement.by);
                    let same = own.0 == allows && (by.is_empty() || own.1 == by);
                    assert!(
                        same,
                        "seed {seed}, call {number}: the documentation says {allows} by {by:?}, the index {own:?}\n{yaml}\n{:?} {:?} {:?} {:?} {rules:?}",
                        asked.head, asked.principal, asked.call, asked.chain
                    );
                });
            }
            allowed += u32::from(allows);
            refused += u32::from(!allows);
            by_rule += u32::from(!by.is_empty());
        }
    }
    assert!(
        allowed > 3_000 && refused > 3_000 && by_rule > 10_000,
        "hardly exercised: {allowed} {refused} {by_rule}"
    );
}
