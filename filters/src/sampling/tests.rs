//! What is kept: shares, rates, what parents say, and what users may write.

use super::*;

fn trace(rng: &mut fastrand::Rng) -> TraceId {
    TraceId::new(rng)
}

#[test]
fn reads_what_users_write() {
    for (text, ratio, per_second) in [
        ("off", 0.0, 0),
        ("OFF", 0.0, 0),
        ("100%", 1.0, 0),
        ("0.5%", 0.005, 0),
        ("10/s", 0.0, 10),
        ("10/s+1%", 0.01, 10),
        (" 1% + 10/s ", 0.01, 10),
    ] {
        assert_eq!(text.parse(), Ok(Sampling { ratio, per_second }), "{text}");
    }
    for (text, word) in [
        ("", "expected off"),
        ("5", "expected off"),
        ("always", "expected off"),
        ("101%", "0% to 100%"),
        ("-1%", "0% to 100%"),
        ("NaN%", "0% to 100%"),
        ("x%", "expected off"),
        ("1.5/s", "whole number"),
        ("-1/s", "whole number"),
        ("1%+2%", "two shares"),
        ("1/s+2/s", "two rates"),
        ("9999999/s", "at most 1000000/s"),
        ("1%+", "expected off"),
    ] {
        let error = text.parse::<Sampling>().unwrap_err();
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn reads_open_telemetrys_samplers() {
    let read = |name: &str, argument: Option<&str>| Setting::from_otel(name, argument);
    let ratio = |ratio: f64, follows_parent: bool| {
        Ok(Setting { roots: Sampling { ratio, per_second: 0 }, follows_parent })
    };
    assert_eq!(read("always_on", None), ratio(1.0, false));
    assert_eq!(read("parentbased_always_off", None), ratio(0.0, true));
    assert_eq!(read("traceidratio", Some("0.25")), ratio(0.25, false));
    assert_eq!(read("parentbased_traceidratio", Some("")), ratio(1.0, true));
    assert!(read("traceidratio", Some("2")).unwrap_err().contains("OTEL_TRACES_SAMPLER_ARG"));
    assert!(read("traceidratio", Some("nan")).is_err());
    assert!(read("jaeger_remote", None).unwrap_err().contains("always_on"));
}

#[test]
fn a_share_is_as_large_as_it_says_and_smaller_ones_lie_within_larger_ones() {
    let mut rng = fastrand::Rng::with_seed(7);
    let (tenth, third) = (Sampling { ratio: 0.1, per_second: 0 }, Sampling { ratio: 0.33, per_second: 0 });
    let (mut in_tenth, mut in_third, all) = (0, 0, 100_000);
    for _ in 0..all {
        let trace = trace(&mut rng);
        in_tenth += u32::from(tenth.has(trace));
        in_third += u32::from(third.has(trace));
        assert!(third.has(trace) || !tenth.has(trace));
        assert!(Sampling { ratio: 1.0, per_second: 0 }.has(trace) && !Sampling::default().has(trace));
    }
    assert!((9_500..10_500).contains(&in_tenth), "{in_tenth}");
    assert!((32_000..34_000).contains(&in_third), "{in_third}");
}

#[test]
fn the_share_is_open_telemetrys() {
    // The bound of 0.5 is 2^62 in the upper 63 of the last 64 bits.
    let half = Sampling { ratio: 0.5, per_second: 0 };
    let of = |low: u64| TraceId(u128::from(low).to_be_bytes());
    assert!(half.has(of(0x7fff_ffff_ffff_ffff)) && !half.has(of(0x8000_0000_0000_0000)));
}

#[test]
fn a_rate_is_kept_to_and_not_saved_up() {
    let rate = PerSecond::default();
    let mut taken = 0;
    // Ten seconds of a thousand calls each, after a minute in which there were none.
    for step in 0..10_000u64 {
        taken += u32::from(rate.take(10, Micros(60_000_000 + step * 1000)));
    }
    assert!((100..=111).contains(&taken), "{taken}");
    assert!(!rate.take(0, Micros(u64::MAX / 2)));
}

#[test]
fn parents_come_first_where_they_count() {
    let root = Root { trace: TraceId([255; 16]), policy: None, request_id: None };
    let usual = Sampler::new(Setting { roots: Sampling::default(), follows_parent: true });
    assert!(usual.decide(Some(true), &root, Micros(0)));
    assert!(!usual.decide(None, &root, Micros(0)));
    let all = Sampling { ratio: 1.0, per_second: 0 };
    // A document is about traces that begin here.
    let root = Root { policy: Some(all), ..root };
    assert!(!usual.decide(Some(false), &root, Micros(0)));
    assert!(usual.decide(None, &root, Micros(0)));
    let always = Sampler::new(Setting { roots: all, follows_parent: false });
    assert!(always.decide(Some(false), &Root { policy: None, ..root }, Micros(0)));
}

#[test]
fn a_request_id_decides_the_same_everywhere() {
    let setting = Setting { roots: Sampling { ratio: 0.5, per_second: 0 }, follows_parent: true };
    let mut rng = fastrand::Rng::with_seed(3);
    let mut kept = 0;
    for n in 0..1000 {
        let id = format!("request-{n}");
        let decide = |rng: &mut fastrand::Rng| {
            let root = Root { trace: trace(rng), policy: None, request_id: Some(id.as_bytes()) };
            Sampler::new(setting).decide(None, &root, Micros(0))
        };
        let first = decide(&mut rng);
        assert_eq!(first, decide(&mut rng));
        kept += u32::from(first);
    }
    assert!((400..600).contains(&kept), "{kept}");
}
