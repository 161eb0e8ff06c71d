//! Which calls are preflights, and which origins may read.

use std::time::Duration;

use pilotfish_config::model::Pattern;

use super::*;
use crate::call::test_head::TestHead;
use crate::headers::HeaderMapMut;

const OWN: &str = "https://a.example";

fn rules() -> model::Cors {
    model::Cors {
        allow_origins: vec![
            StringMatch::Exact(OWN.into()),
            StringMatch::Regex(Pattern::new("https://[a-z]+[.]b[.]example").unwrap()),
        ],
        allow_methods: vec!["GET".into(), "POST".into()],
        max_age: Some(Duration::from_secs(600)),
        forward_unmatched_preflights: true,
        ..model::Cors::default()
    }
}

fn kind(rules: &model::Cors, method: &str, origin: Option<&str>, asked: Option<&str>) -> Kind {
    let mut head = TestHead { method: method.into(), ..TestHead::get("http", "a", "/") };
    head.headers.extend(asked.map(|method| ("access-control-request-method".into(), method.into())));
    Cors::new(rules).kind(&head, origin.map(str::as_bytes))
}

#[test]
fn a_preflight_is_an_options_with_an_origin_that_asks_for_a_method() {
    let rules = rules();
    let get = Some("GET");
    for (method, origin, asked, want) in [
        ("OPTIONS", Some(OWN), get, Kind::Preflight { allowed: true }),
        ("OPTIONS", Some("https://pr.b.example"), get, Kind::Preflight { allowed: true }),
        ("OPTIONS", Some(OWN), None, Kind::Allowed),
        ("OPTIONS", Some(OWN), Some(""), Kind::Allowed),
        ("OPTIONS", None, get, Kind::Other),
        ("OPTIONS", Some(""), get, Kind::Other),
        ("OPTIONS", Some("https://evil.example"), get, Kind::Other),
        ("GET", Some(OWN), get, Kind::Allowed),
        ("GET", Some("https://a.example.evil"), None, Kind::Other),
        ("GET", Some("https://x.b.example.evil"), None, Kind::Other),
        ("GET", Some("https://A.example"), None, Kind::Other),
    ] {
        assert_eq!(kind(&rules, method, origin, asked), want, "{method} {origin:?} {asked:?}");
    }
}

#[test]
fn preflights_of_other_origins_are_answered_here_when_they_are_to_be_ignored() {
    let rules = model::Cors { forward_unmatched_preflights: false, ..rules() };
    let evil = Some("https://evil.example");
    assert_eq!(kind(&rules, "OPTIONS", evil, Some("GET")), Kind::Preflight { allowed: false });
    assert_eq!(kind(&rules, "OPTIONS", evil, None), Kind::Other);
    assert_eq!(kind(&rules, "GET", evil, None), Kind::Other);
}

#[derive(Default)]
struct Map(std::collections::BTreeMap<String, String>);

impl HeaderMapMut for Map {
    fn set(&mut self, name: &str, value: &[u8]) {
        self.0.insert(name.into(), String::from_utf8(value.to_vec()).unwrap());
    }
    fn append(&mut self, name: &str, value: &[u8]) {
        self.set(name, value);
    }
    fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }
}

#[test]
fn what_the_agent_says_of_credentials_does_not_hold_for_origins_that_the_rule_adds() {
    let mut map = Map::default();
    map.set("access-control-allow-origin", b"https://other.example");
    map.set("access-control-allow-credentials", b"true");
    map.set("access-control-expose-headers", b"x-own");
    Cors::new(&rules()).expose(OWN.as_bytes(), &mut map);
    assert_eq!(map.0["access-control-allow-origin"], OWN);
    assert!(!map.0.contains_key("access-control-allow-credentials"));
    assert_eq!(map.0["access-control-expose-headers"], "x-own", "the rule says nothing of it");
}

#[test]
fn a_permission_says_what_the_rule_says_and_nothing_else() {
    let mut map = Map::default();
    Cors::new(&rules()).permit(OWN.as_bytes(), &mut map);
    let said: Vec<_> = map.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        said,
        [
            ("access-control-allow-methods", "GET,POST"),
            ("access-control-allow-origin", OWN),
            ("access-control-max-age", "600"),
        ]
    );
}
