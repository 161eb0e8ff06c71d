//! What makes a conversation, and what does not.

use super::*;
use crate::call::test_head::{TestHead, caller};

fn one(policy: HashPolicy) -> Affinity {
    Affinity { policies: [policy].into() }
}

fn hash_of(policy: HashPolicy, head: &TestHead, call: &Call) -> Option<u64> {
    key(&one(policy), head, call, &caller(80), &mut fastrand::Rng::with_seed(1)).hash
}

fn cookie_policy(ttl: Option<u64>) -> CookiePolicy {
    CookiePolicy {
        name: "sid".into(),
        path: Some("/a".into()),
        ttl: ttl.map(Duration::from_secs),
        attributes: [("SameSite".into(), Some("Lax".into())), ("Secure".into(), None)].into(),
    }
}

#[test]
fn hashes_never_change_between_releases() {
    let head = TestHead::get("http", "a", "/?k=alice").with("x-user", "alice");
    let want = Some(hash_bytes(b"alice"));
    assert_eq!(hash_of(HashPolicy::Header("x-user".into()), &head, &Call::default()), want);
    assert_eq!(hash_of(HashPolicy::QueryParameter("k".into()), &head, &Call::default()), want);
}

#[test]
fn similar_keys_spread_over_splits_and_buckets() {
    let mut buckets = [0_u32; 64];
    for i in 0..64_000 {
        let key = hash_bytes(format!("user-{i}").as_bytes());
        buckets[(key >> 58) as usize] += 1;
        buckets[(split_hash(key) & 63) as usize] += 1;
    }
    assert!(buckets.iter().all(|n| (1800..2200).contains(n)), "{buckets:?}");
    assert_ne!(hash_bytes(b""), hash_bytes(b"\0"));
    assert_ne!(hash_bytes(b"abcdefgh"), hash_bytes(b"abcdefgh\0"));
}

#[test]
fn what_the_request_does_not_say_is_no_key() {
    let head = TestHead::get("http", "a", "/");
    for policy in [
        HashPolicy::Header("x".into()),
        HashPolicy::QueryParameter("x".into()),
        HashPolicy::ContextId,
        HashPolicy::Session,
        HashPolicy::User,
    ] {
        assert_eq!(hash_of(policy, &head, &Call::default()), None);
    }
}

#[test]
fn a_session_is_also_an_a2a_context() {
    let head = TestHead::get("http", "a", "/");
    let call = Call { context_id: Some("c1".into()), user: Some("u".into()), ..Call::default() };
    let context = hash_of(HashPolicy::ContextId, &head, &call);
    assert!(context.is_some());
    assert_eq!(hash_of(HashPolicy::Session, &head, &call), context);
    assert_eq!(hash_of(HashPolicy::User, &head, &call), Some(hash_bytes(b"u")));
}

#[test]
fn loopback_callers_are_told_apart_by_their_sidecar() {
    let head = TestHead::get("http", "a", "/");
    assert_eq!(hash_of(HashPolicy::SourceIp { own: 7 }, &head, &Call::default()), Some(7));
    let remote = Caller { ip: [10, 0, 0, 1].into(), port: 80 };
    let mut rng = fastrand::Rng::with_seed(1);
    let key = key(&one(HashPolicy::SourceIp { own: 7 }), &head, &Call::default(), &remote, &mut rng);
    assert_eq!(key.hash, Some(hash_bytes(&[10, 0, 0, 1])));
}

#[test]
fn a_cookie_that_is_sent_is_used_and_not_issued() {
    let head = TestHead::get("http", "a", "/").with("cookie", "xsid=no; sid=\"abc\"; sid=later");
    let mut rng = fastrand::Rng::with_seed(1);
    let key = key(
        &one(HashPolicy::Cookie(cookie_policy(Some(60)))),
        &head,
        &Call::default(),
        &caller(80),
        &mut rng,
    );
    assert_eq!(key, Key { hash: Some(hash_bytes(b"abc")), set_cookie: None });
}

#[test]
fn an_issued_cookie_comes_back_to_the_same_key() {
    let affinity = one(HashPolicy::Cookie(cookie_policy(Some(60))));
    let mut rng = fastrand::Rng::with_seed(1);
    let first = key(&affinity, &TestHead::get("http", "a", "/"), &Call::default(), &caller(80), &mut rng);
    let text = first.set_cookie.clone().unwrap();
    let (pair, attributes) = text.split_once(';').unwrap();
    assert_eq!(attributes, " Max-Age=60; Path=/a; SameSite=Lax; Secure; HttpOnly");
    let head = TestHead::get("http", "a", "/").with("cookie", pair);
    assert_eq!(key(&affinity, &head, &Call::default(), &caller(80), &mut rng).hash, first.hash);
}

#[test]
fn without_a_life_time_no_cookie_is_issued_and_zero_is_a_session_cookie() {
    let issue = |ttl| {
        let affinity = one(HashPolicy::Cookie(cookie_policy(ttl)));
        let mut rng = fastrand::Rng::with_seed(1);
        key(&affinity, &TestHead::get("http", "a", "/"), &Call::default(), &caller(80), &mut rng)
    };
    assert_eq!(issue(None), Key::default());
    assert!(!issue(Some(0)).set_cookie.unwrap().contains("Max-Age"));
}

#[test]
fn several_policies_all_count() {
    let both = Affinity { policies: [HashPolicy::Header("a".into()), HashPolicy::Header("b".into())].into() };
    let of = |head: &TestHead| {
        key(&both, head, &Call::default(), &caller(80), &mut fastrand::Rng::with_seed(1)).hash
    };
    let base = TestHead::get("http", "h", "/");
    let (a, ab) = (of(&base.clone().with("a", "1")), of(&base.clone().with("a", "1").with("b", "2")));
    let ba = of(&base.clone().with("a", "2").with("b", "1"));
    assert_eq!(of(&base), None);
    assert!(a.is_some() && a != ab && ab != ba);
}

#[test]
fn fuzz_cookies_from_seeds() {
    crate::fuzzing::run(&[b"sid=abc; a=b", b"a=b,sid=\"x\"; sid=", b"sid=1&sid", b";;,sid=\"\""], fuzz);
}
