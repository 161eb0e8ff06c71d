//! What a worker remembers is bounded, and right.

use std::time::Duration;

use super::*;

fn verified(rule: usize) -> Known {
    Known::Good(Arc::new({
        let mut verified = Verified::default();
        verified.rule = rule;
        verified
    }))
}

fn rules(audience: &str) -> Arc<[TokenRule]> {
    let keys = pilotfish_filters::tokens::KeySource::Inline("{}".into());
    [TokenRule {
        name: "a rule 1".into(),
        issuer: "i".into(),
        audiences: [audience.into()].into(),
        places: Box::default(),
        keys,
        forward: false,
        payload_to: None,
        claims_to: Box::default(),
        space_delimited: Box::default(),
        required: false,
    }]
    .into()
}

#[test]
fn bad_tokens_drive_out_no_good_one_and_memory_is_bounded() {
    let mut cache = Cache::default();
    cache.settle(1, &rules("a"), 1);
    cache.put("good", verified(0), 1, Micros(0));
    for number in 0..5000 {
        cache.put(
            &format!("bad {number} {}", "x".repeat(number % 3000)),
            Known::Bad(Refusal::Signature),
            1,
            Micros(0),
        );
    }
    assert_eq!(cache.get("good", Micros(0)), Some(verified(0)));
    assert!(cache.bad.newer.bytes + cache.bad.older.bytes <= BAD.bytes);
    for number in 0..5000 {
        cache.put(&format!("good {number}"), verified(0), 1, Micros(0));
        // What is in use stays.
        assert_eq!(cache.get("good", Micros(0)), Some(verified(0)), "{number}");
    }
    let kept = cache.good.newer.entries.len() + cache.good.older.entries.len();
    assert!(kept <= GOOD.tokens, "{kept}");
    assert_eq!(cache.get("good 1", Micros(0)), None);
}

#[test]
fn bytes_are_counted_when_a_token_comes_back_from_the_older_half() {
    let mut turns: Turns<u8> = Turns::default();
    let room = Room { tokens: 4, bytes: 1000 };
    for token in ["a", "b", "c"] {
        turns.insert(token.into(), 0, room);
    }
    assert_eq!((turns.newer.bytes, turns.older.bytes), (1, 2));
    assert!(turns.get("a", room).is_some());
    assert_eq!((turns.newer.bytes, turns.older.bytes), (2, 1));
}

#[test]
fn other_rules_or_keys_forget_all() {
    let mut cache = Cache::default();
    let put = |cache: &mut Cache| cache.put("t", verified(0), cache.generation, Micros(0));
    cache.settle(1, &rules("a"), 1);
    put(&mut cache);
    cache.settle(2, &rules("a"), 1);
    assert!(cache.get("t", Micros(0)).is_some(), "another snapshot with the same rules");
    cache.settle(3, &rules("b"), 1);
    assert!(cache.get("t", Micros(0)).is_none());
    put(&mut cache);
    cache.settle(3, &rules("b"), 2);
    assert!(cache.get("t", Micros(0)).is_none());
    // Found out by keys that are not the newest any more.
    cache.put("t", verified(0), 1, Micros(0));
    assert!(cache.get("t", Micros(0)).is_none());
}

#[test]
fn a_bad_token_is_looked_at_again_after_a_while() {
    let mut cache = Cache::default();
    cache.settle(1, &rules("a"), 1);
    cache.put("t", Known::Bad(Refusal::NoKeys), 1, Micros(0));
    assert_eq!(cache.get("t", Micros(0)), Some(Known::Bad(Refusal::NoKeys)));
    assert_eq!(cache.get("t", Micros(0).after(Duration::from_secs(5))), None);
}
