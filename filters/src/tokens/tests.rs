//! Where tokens are found, and what is too unclear to be looked at.

use std::borrow::Cow;
use std::time::Duration;

use super::*;

/// Headers, and the query.
struct Asked(Vec<(&'static str, String)>, &'static str);

impl Head for Asked {
    fn method(&self) -> &str {
        "GET"
    }
    fn scheme(&self) -> &str {
        "http"
    }
    fn authority(&self) -> &str {
        "a"
    }
    fn path(&self) -> &str {
        "/"
    }
    fn query(&self) -> Option<&str> {
        Some(self.1).filter(|query| !query.is_empty())
    }
    fn each_header(&self, name: &str, take: &mut dyn FnMut(&[u8])) {
        self.0.iter().filter(|(own, _)| *own == name).for_each(|(_, value)| take(value.as_bytes()));
    }
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values = self.0.iter().filter(|(own, _)| *own == name).map(|(_, value)| value.as_bytes());
        let first = values.next()?;
        let rest: Vec<&[u8]> = values.collect();
        if rest.is_empty() {
            return Some(Cow::Borrowed(first));
        }
        let separator: &[u8] = if name == "cookie" { b"; " } else { b"," };
        Some(Cow::Owned([&[first][..], &rest].concat().join(separator)))
    }
}

fn rule(places: Vec<Place>) -> TokenRule {
    TokenRule {
        name: "default/a rule 1".into(),
        issuer: "i".into(),
        audiences: Box::default(),
        places: places.into(),
        keys: KeySource::Uri { uri: "http://k".into(), timeout: Duration::from_secs(1) },
        forward: false,
        payload_to: None,
        claims_to: Box::default(),
        space_delimited: Box::default(),
        required: false,
    }
}

fn rules() -> TokenRules {
    let bearer = Place::Header("authorization".into(), "Bearer ".into());
    let usual = rule(vec![bearer, Place::Parameter("access_token".into())]);
    let others = rule(vec![Place::Header("x-jwt".into(), "".into()), Place::Cookie("session".into())]);
    TokenRules::new(vec![usual, others])
}

#[test]
fn a_token_is_found_where_a_rule_looks_and_nowhere_else() {
    let rules = rules();
    let find = |headers: &[(&'static str, &str)], query: &'static str| {
        let asked = Asked(headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), query);
        rules.find(&asked).map(|found| found.map(|found| (found.token.into_owned(), found.at)))
    };
    let at = |token: &str, at: usize| Ok(Some((token.to_owned(), at)));
    assert_eq!(find(&[], ""), Ok(None));
    assert_eq!(find(&[("authorization", "Bearer a.b.c")], ""), at("a.b.c", 0));
    assert_eq!(find(&[("authorization", "bearer   a.b.c ")], ""), at("a.b.c", 0), "a scheme has no case");
    assert_eq!(find(&[("authorization", "Basic YTpi")], ""), Ok(None));
    assert_eq!(find(&[("authorization", "Digest a=\"b\", c=\"d\"")], ""), Ok(None));
    assert_eq!(find(&[("authorization", "Bearer ")], ""), Ok(None));
    assert_eq!(find(&[], "x=1&access_token=a.b.c"), at("a.b.c", 1));
    assert_eq!(find(&[], "xaccess_token=a.b.c&access_token="), Ok(None));
    assert_eq!(find(&[("x-jwt", "a.b.c")], ""), at("a.b.c", 2));
    assert_eq!(find(&[("cookie", "x=1; session=a.b.c")], ""), at("a.b.c", 3));
    assert_eq!(find(&[("cookie", "x=1"), ("cookie", "session=\"a.b.c\"")], ""), at("a.b.c", 3));
    assert_eq!(find(&[("cookie", "x=\u{fc}; session=a.b.c; xsession=d.e.f; session=")], ""), at("a.b.c", 3));
    // The same one twice is still one caller.
    assert_eq!(find(&[("authorization", "Bearer a.b.c")], "access_token=a.b.c"), at("a.b.c", 0));
}

#[test]
fn who_calls_has_to_be_clear() {
    let rules = rules();
    let find = |headers: &[(&'static str, &str)], query: &'static str| {
        let asked = Asked(headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), query);
        rules.find(&asked).map(|found| found.is_some())
    };
    let several = Err(Unclear::Several);
    assert_eq!(find(&[("authorization", "Bearer a.b.c")], "access_token=d.e.f"), several);
    assert_eq!(find(&[("authorization", "Bearer a.b.c"), ("x-jwt", "d.e.f")], ""), several);
    assert_eq!(find(&[("authorization", "Bearer a.b.c"), ("authorization", "Bearer d.e.f")], ""), several);
    assert_eq!(find(&[("authorization", "Basic YTpi"), ("authorization", "Bearer d.e.f")], ""), several);
    assert_eq!(find(&[("authorization", "Bearer a.b.c, Bearer d.e.f")], ""), several);
    assert_eq!(find(&[("x-jwt", "a.b.c"), ("x-jwt", "a.b.c")], ""), several);
    assert_eq!(find(&[("cookie", "session=a.b.c; session=d.e.f")], ""), several);
    assert_eq!(find(&[], "access_token=a.b.c&access_token=d.e.f"), several);
    let long = "a".repeat(LONGEST + 1);
    assert_eq!(find(&[("x-jwt", &long)], ""), Err(Unclear::TooLong));
    assert_eq!(find(&[("x-jwt", &long[1..])], ""), Ok(true));
}

#[test]
fn a_token_is_only_of_rules_that_look_where_it_is() {
    let rules = rules();
    let asked = Asked(vec![("x-jwt", "a.b.c".to_owned())], "");
    let found = rules.find(&asked).unwrap().unwrap();
    let looks: Vec<bool> = rules.rules().iter().map(|rule| rules.looks_at(rule, &found)).collect();
    assert_eq!(looks, [false, true]);
}
