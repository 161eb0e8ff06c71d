//! Istio's table, and what Envoy does at its edges.

use super::*;

#[test]
fn the_table() {
    use Normalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None};
    // Path, NONE, BASE, MERGE_SLASHES, DECODE_AND_MERGE_SLASHES.
    let rows = [
        ("/a/../b", "/a/../b", "/b", "/b", "/b"),
        ("/a/./b/.", "/a/./b/.", "/a/b/", "/a/b/", "/a/b/"),
        (
            "/public/./data/abc/../xyz",
            "/public/./data/abc/../xyz",
            "/public/data/xyz",
            "/public/data/xyz",
            "/public/data/xyz",
        ),
        ("/../../b", "/../../b", "/b", "/b", "/b"),
        ("/..", "/..", "/", "/", "/"),
        ("/a/..", "/a/..", "/", "/", "/"),
        ("/a/b/..", "/a/b/..", "/a/", "/a/", "/a/"),
        ("/some\\data", "/some\\data", "/some/data", "/some/data", "/some/data"),
        ("/a\\..\\b", "/a\\..\\b", "/b", "/b", "/b"),
        ("/some//data///abc", "/some//data///abc", "/some//data///abc", "/some/data/abc", "/some/data/abc"),
        ("//", "//", "//", "/", "/"),
        ("/a//../b", "/a//../b", "/a/b", "/a/b", "/a/b"),
        (
            "/some%2fdata/%61%62%63",
            "/some%2fdata/%61%62%63",
            "/some%2fdata/abc",
            "/some%2fdata/abc",
            "/some/data/abc",
        ),
        ("/a%5Cb%5c%2F", "/a%5Cb%5c%2F", "/a%5Cb%5c%2F", "/a%5Cb%5c%2F", "/a/b/"),
        ("/%2e%2E/x", "/%2e%2E/x", "/x", "/x", "/x"),
        ("/a/.%2e/x", "/a/.%2e/x", "/x", "/x", "/x"),
        ("/a/..%2fx", "/a/..%2fx", "/a/..%2fx", "/a/..%2fx", "/x"),
        ("/%7e%2D%5f%30%5A", "/%7e%2D%5f%30%5A", "/~-_0Z", "/~-_0Z", "/~-_0Z"),
        ("/%20%c3%a4%3B", "/%20%c3%a4%3B", "/%20%c3%a4%3B", "/%20%c3%a4%3B", "/%20%c3%a4%3B"),
        ("/%252e%252e/x", "/%252e%252e/x", "/%252e%252e/x", "/%252e%252e/x", "/%252e%252e/x"),
        ("/%zz%4", "/%zz%4", "/%zz%4", "/%zz%4", "/%zz%4"),
        ("/a;x=1/..;/b", "/a;x=1/..;/b", "/a;x=1/..;/b", "/a;x=1/..;/b", "/a;x=1/..;/b"),
        ("/.well-known/x", "/.well-known/x", "/.well-known/x", "/.well-known/x", "/.well-known/x"),
        ("*", "*", "*", "*", "*"),
        ("/", "/", "/", "/", "/"),
    ];
    for (path, none, base, merge, decode) in rows {
        for (how, want) in
            [(None, none), (Base, base), (MergeSlashes, merge), (DecodeAndMergeSlashes, decode)]
        {
            let normal = normalize(path, how).unwrap();
            assert_eq!(normal, want, "{path} by {how:?}");
            assert_eq!(matches!(normal, Cow::Borrowed(_)), path == want, "{path} by {how:?}");
            // What was normalised is normal, apart from escapes that are decoded once only.
            if !want.contains("%25") {
                assert_eq!(normalize(want, how).unwrap(), want, "{path} by {how:?}, twice");
            }
        }
    }
}

#[test]
fn a_path_with_nul_has_no_normal_form() {
    for how in [Normalization::None, Normalization::Base, Normalization::DecodeAndMergeSlashes] {
        assert!(normalize("/a%00", how).is_err());
    }
}

/// What others may read, and whether it may be elsewhere.
type Others = Option<(&'static [&'static str], bool)>;

#[test]
fn what_obliging_origins_read() {
    let rows: [(&str, Others); 32] = [
        ("/a/b", None),
        ("/.well-known", None),
        ("/a;x/b;y", Some((&["/a/b"], true))),
        ("/public/..;/admin", Some((&["/admin"], true))),
        ("/public/..%2fadmin", Some((&["/admin"], true))),
        // As a path, and as a URL whose host is the first segment.
        ("//admin", Some((&["/admin", "/"], true))),
        ("//x/admin", Some((&["/x/admin", "/admin"], true))),
        ("///x//admin", Some((&["/x/admin", "/admin"], true))),
        ("/%2Fx/admin", Some((&["/x/admin", "/admin"], true))),
        ("/\\x/admin", Some((&["/x/admin", "/admin"], true))),
        ("/a//x/admin", Some((&["/a/x/admin"], false))),
        ("/%61dmin", Some((&["/admin"], false))),
        ("/admin%5cx", Some((&["/admin/x"], false))),
        // What is reserved in paths is decoded by origins too.
        ("/v1/model%3Adelete", Some((&["/v1/model:delete"], false))),
        ("/users/%40me", Some((&["/users/@me"], false))),
        ("/a%20b", Some((&["/a b"], false))),
        ("/caf%c3%a9", Some((&["/café"], false))),
        // Slashes are merged before dots are resolved, or after it.
        ("/x/a%2F%2F..%2Fb", Some((&["/x/a/b", "/x/b"], true))),
        ("/x/a%5c%5c..%5cb", Some((&["/x/a/b", "/x/b"], true))),
        // Parameters are cut before anything is decoded, or after it.
        ("/x/b;a%2Fc", Some((&["/x/b;a/c", "/x/b/c", "/x/b"], true))),
        ("/x/b%3Ba", Some((&["/x/b;a", "/x/b"], true))),
        ("/x/b%3Fa", Some((&["/x/b?a", "/x/b"], true))),
        ("/x/b%23a", Some((&["/x/b#a", "/x/b"], true))),
        // What was encoded twice, or more often.
        ("/x/%252e%252e/b", Some((&["/b"], true))),
        ("/x/..%252fb", Some((&["/b"], true))),
        ("/x/%25252525%32e./b", Some((&["/b"], true))),
        ("/x/%%32e%%32%65/b", Some((&["/b"], true))),
        ("/b%2500.png", Some((&["/b\0.png", "/b"], true))),
        // Overlong forms.
        ("/x/%c0%ae%c0%ae%c0%afb", Some((&["/b"], true))),
        ("/%c1%a1", Some((&["/a"], false))),
        ("/%ff", Some((&["/\u{fffd}"], false))),
        ("/%zz%4", None),
    ];
    for (path, want) in rows {
        let loose = loosest(path);
        let own = loose
            .as_ref()
            .map(|loose| (loose.readings.iter().map(String::as_str).collect::<Vec<_>>(), loose.strays));
        assert_eq!(own, want.map(|(readings, climbs)| (readings.to_vec(), climbs)), "{path}");
    }
    // Work for a long path is in proportion to it.
    assert_eq!(loosest(&format!("/%{}41", "25".repeat(5_000))).unwrap().readings, ["/A"]);
}
