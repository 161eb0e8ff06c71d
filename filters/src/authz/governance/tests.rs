//! Matching against naive twins, and values that two servers could read differently.

use pilotfish_config::model::Permission;

use super::glob::Glob;
use super::resource::{name, of_path};

/// A glob by the book: every way to stretch each `*` is tried.
fn naive(glob: &[u8], text: &[u8]) -> bool {
    match glob.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|taken| naive(rest, &text[taken..])),
        Some((first, rest)) => {
            text.split_first().is_some_and(|(own, text)| own == first && naive(rest, text))
        }
    }
}

#[test]
fn globs_match_as_the_naive_twin_does() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut word = |most: usize, letters: &[char]| -> String {
        (0..rng.usize(0..=most)).map(|_| letters[rng.usize(..letters.len())]).collect()
    };
    let mut matched = 0;
    for _ in 0..30_000 {
        let glob = word(6, &['a', 'b', '/', '*']);
        let text = word(8, &['a', 'b', '/']);
        let expected = naive(glob.as_bytes(), text.as_bytes());
        assert_eq!(Glob::new(&glob).matches(&text), expected, "`{glob}` on `{text}`");
        matched += usize::from(expected);
    }
    assert!(matched > 1000, "{matched}");
}

#[test]
fn permissions_match_as_the_naive_twin_does() {
    let words = ["a", "b", "*"];
    for (domain, verb) in words.iter().flat_map(|domain| words.map(|verb| (domain, verb))) {
        let own = Permission::parse(&format!("{domain}:{verb}")).unwrap();
        for (asked, done) in [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b"), ("", ""), ("ab", "a")] {
            let naive = (*domain == "*" || *domain == asked) && (verb == "*" || verb == done);
            assert_eq!(own.gives(asked, done), naive, "{domain}:{verb} {asked}:{done}");
        }
    }
}

#[test]
fn paths_become_resources_without_doubt_or_not_at_all() {
    let good = [
        ("/", ""),
        ("/a", "a"),
        ("/a/", "a"),
        ("/v1/conversations/17", "v1/conversations/17"),
        ("/a%62c", "abc"),
        ("/a%20b/c", "a b/c"),
        ("/%C3%BC", "ü"),
        ("/..a/b..", "..a/b.."),
    ];
    for (path, resource) in good {
        assert_eq!(of_path(path).as_deref(), Ok(resource), "{path}");
    }
    let bad = [
        "//a",
        "/a//b",
        "/a//",
        "/a/../b",
        "/a/./b",
        "/a/%2e%2e/b",
        "/a/.%2E/b",
        "/a%2Fb",
        "/a%2fb",
        "/a%5Cb",
        "/a\\b",
        "/a;x=/../b",
        "/..;/b",
        "/a%3bb",
        "/a*",
        "/a%2a",
        "/a%252fb",
        "/a%00",
        "/a%0d%0ab",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%ff",
        "/a%3Fb",
        "/a%23b",
    ];
    for path in bad {
        assert!(of_path(path).is_err(), "{path}");
    }
}

#[test]
fn names_have_no_way_out() {
    for good in ["search", "meta-llama/Llama-3", "tools/list", "a.b-c_d", "naïve"] {
        assert!(name(good, "name").is_ok(), "{good}");
    }
    for bad in
        ["", "*", "a*", "../a", "a/../b", "a/", "/a", "a//b", "a\nb", "a\\b", "a%2fb", "a;b", "..", "a..b"]
    {
        assert!(name(bad, "name").is_err(), "{bad}");
    }
    assert!(name(&"a".repeat(513), "name").is_err());
}
