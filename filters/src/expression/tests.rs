//! Conditions: what holds, what is unknown, what is refused and where; and against a naive evaluator.

use std::collections::BTreeMap;

use super::*;

mod naive;

/// A call made of texts.
#[derive(Debug, Clone, Default)]
struct Facts {
    texts: BTreeMap<&'static str, String>,
    numbers: BTreeMap<&'static str, i64>,
    headers: BTreeMap<String, String>,
}

impl View for Facts {
    fn text<'v>(&'v self, attribute: Attribute, room: &'v mut Room) -> Option<&'v str> {
        // Half of them by way of the room.
        let text = self.texts.get(attribute.name())?;
        Some(if text.len() % 2 == 0 { text } else { room.show(text) })
    }

    fn number(&self, attribute: Attribute) -> Option<i64> {
        self.numbers.get(attribute.name()).copied()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

fn facts() -> Facts {
    Facts {
        texts: BTreeMap::from([
            ("request.method", "POST".to_owned()),
            ("request.path", "/v1/chat/completions".to_owned()),
            ("request.host", "nlp.example".to_owned()),
            ("call.agent", "default/nlp".to_owned()),
        ]),
        numbers: BTreeMap::from([
            ("response.code", 503),
            ("request.size", 9_007_199_254_740_993),
            ("request.duration", 1_500_000_000),
            ("call.tries", 2),
            ("connection.mtls", 1),
        ]),
        headers: BTreeMap::from([("x-user".to_owned(), "anna".to_owned())]),
    }
}

fn evaluate(source: &str) -> Option<bool> {
    Expression::compile(source).unwrap_or_else(|error| panic!("{source}: {error}")).evaluate(&facts())
}

#[test]
fn what_holds() {
    for source in [
        "response.code >= 500",
        "response.code==503",
        "response.code in [500, 503]",
        "response.code != 500u && response.code < 0x200",
        "request.method == 'POST' && request.path.startsWith('/v1/')",
        "request.url_path.endsWith(\"completions\")",
        "request.path.contains('chat') || false",
        "request.path.matches('^/v[0-9]+/')",
        "request.path.matches('chat')",
        r"request.path.matches(r'\w+$')",
        "request.host in ['a', 'nlp.example']",
        "request.duration > 1s && request.duration < duration('1.6s') && request.duration == 1500ms",
        "call.tries > 1 && call.tries < 2.5 && 1.5 < call.tries",
        "connection.mtls",
        "connection.mtls == true && connection.mtls != false",
        "!(request.method == 'GET')",
        "!!true",
        "request.headers['x-user'] == 'anna'",
        "request.headers['X-User'] == 'anna'",
        "'x-user' in request.headers && !('x-other' in request.headers)",
        "has(request.headers['x-user']) && !has(request.headers.authorization)",
        "has(call.agent) && !has(call.workflow)",
        "has(call.tries) && !has(response.size)",
        "call.workflow == ''",
        "'nlp' < request.host",
        "'a' < 'b' && 'ab'.contains('')",
        "(call.agent == 'default/nlp') == true",
        "request.path == '/v1\\u002fchat\\x2fcompletions'",
        "\n  true\n&&\ttrue ",
        // 2^53 + 1: a double cannot tell it from 2^53.
        "request.size > 9007199254740992.0",
        "request.size < 1e300 && request.size > -1e300",
        "-1 < call.tries && -1.5 < -1",
    ] {
        assert_eq!(evaluate(source), Some(true), "{source}");
    }
}

#[test]
fn what_hangs_on_something_unknown_is_unknown() {
    for (source, result) in [
        ("request.headers['x-other'] == 'a'", None),
        ("request.headers['x-other'] != 'a'", None),
        ("!(request.headers['x-other'] == 'a')", None),
        ("request.headers['x-other'].startsWith('a') || true", Some(true)),
        ("request.headers['x-other'].matches('a') && false", Some(false)),
        ("request.headers['x-other'] in ['a'] && true", None),
        ("response.size > 5", None),
        ("response.size in [5]", None),
        ("'anna' in ['b', request.headers['x-other']]", None),
    ] {
        let expression = Expression::compile(source).unwrap();
        assert_eq!(expression.evaluate(&facts()), result, "{source}");
        assert_eq!(expression.matches(&facts()), result == Some(true), "{source}");
    }
}

#[test]
fn the_headers_that_have_to_be_kept_are_known() {
    let expression = Expression::compile(
        "request.headers['X-B'] == 'a' || 'x-a' in request.headers || has(request.headers['x-b'])",
    );
    let expression = expression.unwrap();
    assert!(!expression.asks(Attribute::Path));
    assert!(Expression::compile("has(request.path) && true").unwrap().asks(Attribute::Path));
    let headers: Vec<String> = expression.headers().iter().map(ToString::to_string).collect();
    assert_eq!(headers, ["x-b", "x-a"]);
}

#[test]
fn errors_say_where_and_what_to_do() {
    let cases = [
        ("", "column 1: the condition is empty; write one such as `response.code >= 500`"),
        ("  ", "column 1: the condition is empty; write one such as `response.code >= 500`"),
        (
            "request.metod == 'a'",
            "column 1: there is no attribute `request.metod`; did you mean `request.method`?",
        ),
        ("request.method == GET", "column 19: there is no attribute `GET`; a text stands in quotes: 'GET'"),
        ("response.code = 500", "column 15: unexpected `=`; write `==`"),
        ("true & false", "column 6: unexpected `&`; write `&&`"),
        (
            "response.code == '500'",
            "column 18: a whole number cannot be compared with a text; numbers stand without quotes",
        ),
        (
            "request.method == 5",
            "column 19: a text cannot be compared with a whole number; texts stand in quotes: '..'",
        ),
        (
            "request.duration > 5",
            "column 20: a duration cannot be compared with a whole number; durations have a unit: `250ms`, `1.5s`",
        ),
        (
            "response.code > 1s",
            "column 17: a whole number cannot be compared with a duration; durations have a unit: `250ms`, `1.5s`",
        ),
        (
            "request.method",
            "column 1: expected a condition, found a text; compare it: `==`, `<`, `in`, `startsWith(..)`, or ask `has(..)`",
        ),
        (
            "!response.code",
            "column 2: expected a condition, found a whole number; compare it: `==`, `<`, `in`, `startsWith(..)`, or ask `has(..)`",
        ),
        ("true &&", "column 8: expected an attribute or a value, found the end"),
        ("(true", "column 6: expected `)`, found the end"),
        ("true true", "column 6: expected an operator such as `&&` or `==`, or the end, found `true`"),
        (
            "request.path.startswith('/')",
            "column 14: there is no function `startswith`; did you mean `startsWith`?",
        ),
        (
            "request.path.size() > 1",
            "column 14: there is no function `size`; known: startsWith, endsWith, contains, matches",
        ),
        ("response.code.contains('5')", "column 1: `contains` is for texts, and this is a whole number"),
        (
            "request.path.contains(5)",
            "column 23: `contains` needs a text, found a whole number; texts stand in quotes: '..'",
        ),
        ("request.path.matches('(')", "column 22: the regular expression is not valid: unclosed group"),
        ("request.path.matches(request.host)", "column 22: `matches` needs a text in quotes"),
        (
            "request.host in 'a'",
            "column 17: expected a list after `in`, found a text; write one such as `['a', 'b']`",
        ),
        (
            "request.host in ['a', 5]",
            "column 23: a text cannot be compared with a whole number; texts stand in quotes: '..'",
        ),
        (
            "request.host == ['a']",
            "column 17: a text cannot be compared with a list; write `in` before a list",
        ),
        ("request.host in ['a' 'b']", "column 22: expected `]`, found a text"),
        ("1 < call.tries < 3", "column 16: a comparison cannot be compared again; use `&&`, or brackets"),
        ("connection.mtls > false", "column 17: true and false have no order; use `==` or `!=`"),
        ("request.headers['a b'] == ''", "column 17: this is no header's name"),
        ("request.headers == 'a'", "column 20: all headers cannot be compared with a text"),
        (
            "request.headers['authorization'] == 'a'",
            "column 17: `authorization` carries credentials: its value cannot be asked for; `has(request.headers['authorization'])` can",
        ),
        (
            "request.headers.cookie.contains('a')",
            "column 1: `cookie` carries credentials: its value cannot be asked for; `has(request.headers['cookie'])` can",
        ),
        ("has('a')", "column 5: expected an attribute, found a text"),
        ("has(request.headers)", "column 20: expected `['name']`, found `)`"),
        (
            "duration('x') < 1s",
            "column 10: 'x' is no duration: write a number with a unit, such as `300ms`, `1.5s` or `1h30m`",
        ),
        ("'abc", "column 1: the text has no closing quote"),
        ("'a\nb'", "column 1: the text has no closing quote"),
        ("'\\q' == 'a'", "column 2: there is no escape `\\q`; a backslash itself is `\\\\`"),
        ("'\\ud800' == 'a'", "column 2: there is no escape `\\u`; a backslash itself is `\\\\`"),
        ("99999999999999999999 > 1", "column 1: `99999999999999999999` is too large"),
        ("1e999 > 1", "column 1: `1e999` is too large"),
        ("call.tries > 1 + 1", "column 16: unexpected `+`; conditions do not calculate"),
        (
            "call.tries > 1 ? true : false",
            "column 16: expected an operator such as `&&` or `==`, or the end, found `?`",
        ),
        (
            "'request.method'",
            "column 1: expected a condition, found a text; names of attributes stand without quotes",
        ),
        ("call.capabilty == ‘a’", "column 19: unexpected `\\u{2018}`; write straight quotes: 'text'"),
        (
            "true &&\n  request.banana == 'a'",
            "line 2, column 3: there is no attribute `request.banana`; known: request.method, request.path, request.url_path, request.host, request.scheme, request.id, request.protocol, request.size, request.duration, request.headers",
        ),
        ("ä", "column 1: unexpected `\\u{e4}`"),
    ];
    for (source, error) in cases {
        let found =
            Expression::compile(source).map(|_| String::new()).unwrap_or_else(|error| error.to_string());
        assert_eq!(found, error, "{source}");
    }
}

#[test]
fn what_is_too_much_is_refused_at_once() {
    let error = |source: &str| Expression::compile(source).unwrap_err().to_string();
    assert!(error(&"a".repeat(5000)).contains("5000 bytes"));
    assert!(error(&format!("{}true", "(".repeat(4000))).contains("more than 32"));
    assert!(error(&format!("{}true", "!".repeat(4000))).contains("more than 32"));
    assert!(error(&format!("request.host in {}", "[".repeat(2000))).contains("more than 32"));
    let many = ["request.path.matches('a')"; 9].join("||");
    assert!(error(&many).contains("more than 8 regular expressions"));
    assert!(error("request.path.matches('(a{1000}){1000}')").contains("not valid"));
    // What is long but flat is fine.
    let flat = vec!["call.tries==1"; 260].join("||");
    assert!(Expression::compile(&flat).is_ok());
}

/// A regular expression that backtracking would not survive.
#[test]
fn hostile_input_takes_linear_time() {
    let expression = Expression::compile("request.path.matches('(a*)*b|(a|aa)+$')").unwrap();
    let mut facts = facts();
    facts.texts.insert("request.path", "a".repeat(100_000));
    assert!(expression.matches(&facts));
}

#[test]
fn random_bytes_neither_panic_nor_hang() {
    let mut rng = fastrand::Rng::with_seed(5);
    let parts = [
        "request.path",
        "request.headers",
        "['",
        "']",
        "'",
        "\"",
        "r'",
        "\\",
        "\\x",
        "\\u00",
        "(",
        ")",
        "[",
        "]",
        ",",
        ".",
        "!",
        "&&",
        "||",
        "==",
        "in",
        "has(",
        "duration(",
        "matches(",
        "1",
        "1.",
        ".5",
        "1e",
        "-",
        "0x",
        "s",
        "ms",
        " ",
        "\n",
        "ü",
        "\u{2028}",
        "true",
        "call.tries",
        "response.code",
    ];
    for _ in 0..20_000 {
        let source: String = (0..rng.usize(..14)).filter_map(|_| rng.choice(parts)).collect();
        if let Ok(expression) = Expression::compile(&source) {
            let _ = expression.evaluate(&facts());
            assert_eq!(Expression::compile(&source), Ok(expression));
        }
    }
}

#[test]
fn what_does_not_fit_the_room_is_cut_at_a_character() {
    let mut room = Room::default();
    assert_eq!(room.show(&"ü".repeat(60)), "ü".repeat(48));
    assert_eq!(room.show(&7), "7");
}

#[test]
fn every_attribute_has_one_meaning() {
    let names: Vec<&str> = Attribute::names().collect();
    let distinct: std::collections::BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(names.len(), distinct.len());
    for (attribute, names) in Attribute::ALL {
        assert!(names.iter().all(|name| Attribute::named(name) == Some(*attribute)));
        assert_eq!(attribute.name(), names[0]);
    }
}
