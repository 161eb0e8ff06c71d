//! The index finds what going through every block would find.

use pilotfish_config::model::Pattern;

use super::*;
use crate::call::test_head::{TestHead, caller};

/// What the index must agree with: look at every block from the top.
fn scan<'i>(index: &'i RouteIndex, head: &TestHead, caller: &Caller) -> Option<&'i Block> {
    index.blocks().iter().find(|block| block.matches(head, caller))
}

fn block(rule: u32, path: PathMatch, rest: Vec<Condition>) -> Block {
    Block { rule, path, rest: rest.into() }
}

fn exact(path: &str) -> PathMatch {
    PathMatch::Text(TextMatch::Exact(path.into()))
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Text(TextMatch::Prefix(path.into()))
}

fn regex(path: &str) -> PathMatch {
    PathMatch::Text(TextMatch::Regex(Pattern::new(path).unwrap()))
}

fn header(name: &str, value: &str) -> Condition {
    Condition::Header(name.into(), TextMatch::Exact(value.into()))
}

/// A path of up to four short segments out of a small alphabet, so that tables and requests often meet.
fn random_path(rng: &mut fastrand::Rng) -> String {
    let mut path = String::from("/");
    for _ in 0..rng.usize(0..4) {
        path.push_str(rng.choice(["a", "ab", "b", "A", "é", "a.b"]).unwrap_or("a"));
        if rng.bool() {
            path.push('/');
        }
    }
    path
}

fn random_block(rule: u32, rng: &mut fastrand::Rng) -> Block {
    let path = random_path(rng);
    let path = match rng.u8(0..12) {
        0..3 => exact(&path),
        3..6 => prefix(&path),
        6 => regex(&format!("{}[ab]*", path.replace('.', r"\."))),
        7 => regex(&format!("{path}|/b")),
        8 => regex(rng.choice(["/a?b*", "(?i)/a.*", ".*", "/a/(a|b)/?", "/ab+", r"/a\.b.*"]).unwrap_or(".*")),
        9 => PathMatch::ExactNoCase(path.into()),
        10 => PathMatch::PrefixNoCase(path.into()),
        _ => PathMatch::Any,
    };
    let mut rest = Vec::new();
    for _ in 0..rng.usize(0..3) {
        let text = match rng.u8(0..3) {
            0 => TextMatch::Present,
            _ => TextMatch::Exact(rng.choice(["1", "2"]).unwrap_or("1").into()),
        };
        let name: Box<str> = rng.choice(["x", "y"]).unwrap_or("x").into();
        rest.push(match rng.u8(0..6) {
            0..3 => Condition::Header(name, text),
            3 => Condition::NotHeader(name, text),
            4 => Condition::Query(name, text),
            _ => Condition::Port(if rng.bool() { 80 } else { 81 }),
        });
    }
    block(rule, path, rest)
}

fn random_head(rng: &mut fastrand::Rng) -> TestHead {
    let query = rng.choice(["", "?x=1", "?x=2&y=1", "?y"]).unwrap_or("");
    let mut head = TestHead::get("http", "h", &format!("{}{query}", random_path(rng)));
    for name in ["x", "y"] {
        if rng.bool() {
            head = head.with(name, rng.choice(["1", "2", ""]).unwrap_or("1"));
        }
    }
    head
}

#[test]
fn an_index_answers_as_a_scan_from_the_top_does() {
    let mut rng = fastrand::Rng::with_seed(42);
    let mut found = 0;
    for _ in 0..400 {
        let size = rng.usize(0..60);
        let index = RouteIndex::new((0..size as u32).map(|rule| random_block(rule, &mut rng)).collect());
        for _ in 0..100 {
            let (head, caller) = (random_head(&mut rng), caller(if rng.bool() { 80 } else { 81 }));
            let got = index.find(&head, &caller).map(|block| block.rule);
            let want = scan(&index, &head, &caller).map(|block| block.rule);
            assert_eq!(got, want, "{head:?}\n{:?}", index.blocks());
            found += usize::from(got.is_some());
        }
    }
    assert!(found > 10_000, "the property was hardly exercised: {found}");
}

#[test]
fn order_wins_over_specificity() {
    let of = |fillers: u32| {
        let mut blocks = vec![
            block(0, prefix("/api"), vec![header("x", "1")]),
            block(1, prefix("/"), vec![]),
            block(2, exact("/api/v1"), vec![]),
        ];
        blocks.extend((3..3 + fillers).map(|at| block(at, exact(&format!("/{at}")), vec![])));
        RouteIndex::new(blocks)
    };
    let head = TestHead::get("http", "h", "/api/v1");
    for index in [of(0), of(10)] {
        let found = |head: &TestHead| index.find(head, &caller(80)).map(|b| b.rule);
        assert_eq!(found(&head), Some(1), "the first that matches, not the longest");
        assert_eq!(found(&head.clone().with("x", "1")), Some(0));
    }
}

/// A head that counts how often it is asked, which is what a look-up costs.
struct Counting(TestHead, std::cell::Cell<u32>);

impl Head for Counting {
    fn method(&self) -> &str {
        self.0.method()
    }
    fn scheme(&self) -> &str {
        self.0.scheme()
    }
    fn authority(&self) -> &str {
        self.0.authority()
    }
    fn path(&self) -> &str {
        self.1.set(self.1.get() + 1);
        self.0.path()
    }
    fn query(&self) -> Option<&str> {
        self.0.query()
    }
    fn header(&self, name: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
        self.1.set(self.1.get() + 1);
        self.0.header(name)
    }
    fn each_header(&self, name: &str, take: &mut dyn FnMut(&[u8])) {
        self.1.set(self.1.get() + 1);
        self.0.each_header(name, take);
    }
}

/// Questions that the look-up of the last of `n` routes asks; `make` gives the n-th route and a head for it.
fn questions(n: u32, make: fn(u32) -> (Block, TestHead)) -> u32 {
    let index = RouteIndex::new((0..n).map(|at| make(at).0).collect());
    let head = Counting(make(n - 1).1, Default::default());
    assert_eq!(index.find(&head, &caller(80)).map(|b| b.rule), Some(n - 1));
    head.1.get()
}

#[test]
fn many_routes_ask_no_more_than_ten() {
    let get = |path: String| TestHead::get("http", "h", &path);
    let kinds: [fn(u32) -> (Block, TestHead); 5] = [
        |at| (block(at, exact(&format!("/r/{at}")), vec![]), TestHead::get("http", "h", &format!("/r/{at}"))),
        |at| {
            (
                block(at, prefix(&format!("/r/{at:05}/")), vec![]),
                TestHead::get("http", "h", &format!("/r/{at:05}/x")),
            )
        },
        |at| {
            let path = format!("/r/{at:05}/[a-z]+");
            (block(at, regex(&path), vec![]), TestHead::get("http", "h", &format!("/r/{at:05}/x")))
        },
        |at| {
            let tenant = format!("t{at}");
            (
                block(at, prefix("/"), vec![header("tenant", &tenant)]),
                TestHead::get("http", "h", "/x").with("tenant", &tenant),
            )
        },
        |at| {
            let tenant = format!("t{at}");
            (
                block(at, PathMatch::Any, vec![header("tenant", &tenant)]),
                TestHead::get("http", "h", "/x").with("tenant", &tenant),
            )
        },
    ];
    for (kind, make) in kinds.into_iter().enumerate() {
        let (few, many) = (questions(10, make), questions(2_000, make));
        assert!(many <= few, "kind {kind}: {few} questions for 10 routes, {many} for 2,000");
    }
    let index =
        RouteIndex::new((0..2_000).map(|at| block(at, prefix(&format!("/r/{at}/")), vec![])).collect());
    let miss = Counting(get("/nowhere".into()), Default::default());
    assert!(index.find(&miss, &caller(80)).is_none());
    assert!(miss.1.get() <= 2);
}
