//! The grammar of constraints: what it takes, what it refuses and where.

use super::*;

fn tests(text: &str) -> Vec<Test> {
    Constraint::parse(text)
        .unwrap_or_else(|deny| panic!("{text}: {deny:?}"))
        .terms
        .into_iter()
        .map(|t| t.test)
        .collect()
}

fn value(key: &str, negated: bool, values: &[&str]) -> Test {
    Test::Value { key: key.into(), negated, values: values.iter().map(|v| (*v).into()).collect() }
}

fn range(negated: bool, ranges: &[&str]) -> Test {
    Test::Version { negated, ranges: ranges.iter().map(|r| VersionReq::parse(r).unwrap()).collect() }
}

#[test]
fn the_whole_grammar() {
    use Comparison::{Greater, GreaterOrEqual, Less, LessOrEqual};
    let good: &[(&str, &[Test])] = &[
        ("", &[]),
        ("  ", &[]),
        ("region=eu-central", &[value("region", false, &["eu-central"])]),
        ("zone != eu-1a", &[value("zone", true, &["eu-1a"])]),
        ("gpu in (a100|h100)", &[value("gpu", false, &["a100", "h100"])]),
        ("gpu in( a100 | h100 )", &[value("gpu", false, &["a100", "h100"])]),
        ("tier=\"gold, very\"", &[value("tier", false, &["gold, very"])]),
        ("app.kubernetes.io/name=x y", &[value("app.kubernetes.io/name", false, &["x y"])]),
        ("inner in (in)", &[value("inner", false, &["in"])]),
        ("version=^1.2", &[range(false, &["^1.2"])]),
        ("version=v2", &[range(false, &["^2"])]),
        ("version>=1.2", &[range(false, &[">=1.2"])]),
        ("version<v2", &[range(false, &["<2"])]),
        ("version != 1.3.0", &[range(true, &["1.3.0"])]),
        ("version in (1.x|3.*)", &[range(false, &["1.x", "3.*"])]),
        ("latency<200ms", &[Test::Measure(Measure::Latency, Less, 200.0)]),
        ("latency <= 1.5 s", &[Test::Measure(Measure::Latency, LessOrEqual, 1500.0)]),
        ("latency<500us", &[Test::Measure(Measure::Latency, Less, 0.5)]),
        ("latency<250", &[Test::Measure(Measure::Latency, Less, 250.0)]),
        ("success>=99%", &[Test::Measure(Measure::Success, GreaterOrEqual, 0.99)]),
        ("success>0.9", &[Test::Measure(Measure::Success, Greater, 0.9)]),
        ("inflight<5", &[Test::Measure(Measure::InFlight, Less, 5.0)]),
        ("cost<=2s", &[Test::Measure(Measure::Cost, LessOrEqual, 2000.0)]),
        (
            "a=1,b!=2 , c in (3)",
            &[value("a", false, &["1"]), value("b", true, &["2"]), value("c", false, &["3"])],
        ),
    ];
    for (text, want) in good {
        assert_eq!(tests(text), *want, "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_position() {
    for (text, position) in [
        (",", 1),
        ("a=1,", 5),
        ("a=1,,b=2", 5),
        ("a", 2),
        ("a=", 3),
        ("a==1", 3),
        ("a=1=2", 4),
        ("a in b", 6),
        ("a in (b", 8),
        ("a in (b|)", 9),
        ("a in ()", 7),
        ("a in (b,c)", 8),
        ("a in (b) c", 10),
        ("a~1", 2),
        ("a>1", 3),
        ("a=\"x", 3),
        ("latency=5", 9),
        ("latency in (5)", 12),
        ("latency<fast", 9),
        ("latency<5m", 9),
        ("latency<1.2.3", 9),
        ("latency<-1", 9),
        ("success>=101%", 10),
        ("success>=5ms", 10),
        ("inflight<1.5", 10),
        ("inflight<5%", 10),
        ("version=banana", 9),
        ("version>=", 10),
        ("version in (1|x.y)", 12),
        ("é=1", 1),
    ] {
        let deny = Constraint::parse(text).expect_err(text);
        assert_eq!(deny.reason, Reason::BadConstraint, "{text}");
        let detail = deny.detail.unwrap();
        assert!(detail.starts_with(&format!("agent-constraint at {position}:")), "{text}: {detail}");
    }
}

#[test]
fn size_is_bounded() {
    assert!(Constraint::parse(&format!("a={}", "x".repeat(5000))).is_err());
    let many = |n: usize| vec!["a=1"; n].join(",");
    assert!(Constraint::parse(&many(32)).is_ok());
    assert!(Constraint::parse(&many(33)).is_err());
    assert!(Constraint::parse(&format!("a in ({})", vec!["x"; 33].join("|"))).is_err());
}

#[test]
fn fuzz_from_seeds_for_a_while() {
    let seeds = [
        "region=eu, version>=1.2, latency<200ms",
        "gpu in (a100|h100), success>=99%, inflight<5, cost<=2s",
        "tier!=\"a, b\",version in (1.x|^2)",
        "nlu.capability.mesh:80",
        "a@^1.2, b",
    ];
    crate::fuzzing::run(&seeds.map(str::as_bytes), fuzz);
}
