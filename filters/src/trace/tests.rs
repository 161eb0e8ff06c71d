//! Tables of headers, good and bad.

use super::*;
use w3c::State;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn ids() -> (TraceId, SpanId) {
    (TraceId::parse(TRACE).unwrap(), SpanId::parse(SPAN).unwrap())
}

fn traceparent(text: &str) -> Option<Said> {
    w3c::parse(text.as_bytes())
}

#[test]
fn good_traceparents() {
    for (text, sampled, random) in [
        (format!("00-{TRACE}-{SPAN}-01"), true, false),
        (format!("00-{TRACE}-{SPAN}-00"), false, false),
        (format!("00-{TRACE}-{SPAN}-03"), true, true),
        (format!("00-{TRACE}-{SPAN}-fe"), false, true),
        (format!("\t 00-{TRACE}-{SPAN}-01 \t"), true, false),
        (format!("01-{TRACE}-{SPAN}-01"), true, false),
        (format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"), true, false),
        (format!("cc-{TRACE}-{SPAN}-01-"), true, false),
    ] {
        let expected = Said { parent: Some(ids()), sampled: Some(sampled), random };
        assert_eq!(traceparent(&text), Some(expected), "{text}");
    }
}

#[test]
fn bad_traceparents() {
    let zero = "0".repeat(32);
    for text in [
        String::new(),
        "00".into(),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}-01-more"),
        format!("00-{TRACE}-{SPAN}-01."),
        format!("cc-{TRACE}-{SPAN}-01.more"),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
        format!("CC-{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}-0A"),
        format!("00-{zero}-{SPAN}-01"),
        format!("00-{TRACE}-{}-01", &zero[..16]),
        format!("00-{TRACE}-{SPAN}-1"),
        format!("00-{TRACE}-{SPAN}"),
        format!("000-{TRACE}-{SPAN}-01"),
        format!("0-{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}0-{SPAN}-01"),
        format!("00-{}-{SPAN}-01", &TRACE[..31]),
        format!("00_{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}_{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}_01"),
        format!("+0-{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}-+1"),
    ] {
        assert_eq!(traceparent(&text), None, "{text}");
    }
}

#[test]
fn writes_what_it_reads() {
    let (trace, span) = ids();
    let context = TraceContext { trace, span, sampled: true, random: true };
    assert_eq!(w3c::print(&context), *format!("00-{TRACE}-{SPAN}-03").as_bytes());
    let context = TraceContext { sampled: false, random: false, ..context };
    assert_eq!(w3c::print(&context), *format!("00-{TRACE}-{SPAN}-00").as_bytes());
    assert_eq!(b3::print(&context), *format!("{TRACE}-{SPAN}-0").as_bytes());
    let printed = b3::print(&context);
    assert_eq!(b3::parts(&printed)[1], ("x-b3-spanid", SPAN.as_bytes()));
    assert_eq!((trace.to_string(), span.to_string()), (TRACE.into(), SPAN.into()));
}

fn judge(lines: &[&str]) -> State {
    w3c::judge(lines.iter().map(|line| line.as_bytes()))
}

#[test]
fn tracestates() {
    let many = |n: usize| (0..n).map(|n| format!("bar{n}={n}")).collect::<Vec<_>>().join(",");
    let long = format!("{}={}", "k".repeat(256), "v".repeat(256));
    for (line, state) in [
        ("foo=1,bar=2", State::Good),
        ("foo=1 \t , \t bar=2, \t baz=3", State::Good),
        ("foo=1,foo=2", State::Good),
        ("", State::Empty),
        (" , ,", State::Empty),
        ("foo=1,,bar=2", State::Good),
        ("a= b", State::Good),
        ("0@a/b*c_d-e=!#$%&'()*+-./:;<>?@[]^_`{|}~", State::Good),
        (&many(32), State::Good),
        (&many(33), State::Bad),
        (&long, State::Good),
        (&format!("k{long}"), State::Bad),
        (&format!("{long}v"), State::Bad),
        ("FOO=1", State::Bad),
        ("foo =1", State::Bad),
        ("foo.bar=1", State::Bad),
        ("@foo=1,bar=2", State::Bad),
        ("foo", State::Bad),
        ("foo=", State::Bad),
        ("foo=bar=baz", State::Bad),
        ("=1", State::Bad),
        ("foo=\u{7f}", State::Bad),
        ("foo=ü", State::Bad),
        ("foo=a\tb", State::Bad),
        (&vec![long.as_str(); 17].join(","), State::Bad),
    ] {
        assert_eq!(judge(&[line]), state, "{line}");
    }
    assert_eq!(judge(&[]), State::Empty);
    assert_eq!(judge(&["foo=1", "bar=2"]), State::Join);
    assert_eq!(judge(&["", ""]), State::Empty);
    assert_eq!(judge(&["foo=1", ""]), State::Join);
    assert_eq!(judge(&["foo=1", "BAR=2"]), State::Bad);
}

#[test]
fn single_b3() {
    let read = |text: &str| b3::parse(text.as_bytes());
    let said = |sampled| Some(Said { parent: Some(ids()), sampled, random: false });
    assert_eq!(read(&format!("{TRACE}-{SPAN}-1")), said(Some(true)));
    assert_eq!(read(&format!("{TRACE}-{SPAN}-0")), said(Some(false)));
    assert_eq!(read(&format!("{TRACE}-{SPAN}-d-{SPAN}")), said(Some(true)));
    assert_eq!(read(&format!("{TRACE}-{SPAN}")), said(None));
    let short = read(&format!("{}-{SPAN}-1", &TRACE[16..])).unwrap();
    assert_eq!(short.parent.unwrap().0.to_string(), format!("{:016}{}", 0, &TRACE[16..]));
    for (text, sampled) in [("0", false), ("1", true), ("d", true)] {
        assert_eq!(read(text), Some(Said { sampled: Some(sampled), ..Said::default() }));
    }
    for bad in [
        "",
        "2",
        "x",
        TRACE,
        "-",
        &format!("{TRACE}-{SPAN}-2"),
        &format!("{TRACE}-{SPAN}-1-"),
        &format!("{TRACE}-{SPAN}-1-{SPAN}-1"),
        &format!("{TRACE}-{}-1", "0".repeat(16)),
        &format!("{}-{SPAN}-1", "0".repeat(32)),
        &format!("{}-{SPAN}-1", &TRACE[..20]),
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn b3_in_parts() {
    let read = |trace: Option<&str>, span: Option<&str>, sampled: Option<&str>, flags: Option<&str>| {
        let [trace, span, sampled, flags] = [trace, span, sampled, flags].map(|part| part.map(str::as_bytes));
        b3::parse_parts(trace, span, sampled, flags)
    };
    let said = |sampled| Some(Said { parent: Some(ids()), sampled, random: false });
    assert_eq!(read(Some(TRACE), Some(SPAN), Some("1"), None), said(Some(true)));
    assert_eq!(read(Some(TRACE), Some(SPAN), Some("false"), None), said(Some(false)));
    assert_eq!(read(Some(TRACE), Some(SPAN), None, None), said(None));
    assert_eq!(read(Some(TRACE), Some(SPAN), Some("0"), Some("1")), said(Some(true)));
    let only = |sampled| Some(Said { sampled: Some(sampled), ..Said::default() });
    assert_eq!(read(None, None, Some("0"), None), only(false));
    assert_eq!(read(None, None, None, Some("1")), only(true));
    assert_eq!(read(Some(TRACE), None, Some("1"), None), None);
    assert_eq!(read(None, Some(SPAN), Some("1"), None), None);
    assert_eq!(read(Some(TRACE), Some(SPAN), Some("yes"), None), None);
    assert_eq!(read(Some("nothing"), Some(SPAN), Some("1"), None), None);
    assert_eq!(read(None, None, None, None), None);
}

#[test]
fn baggage_within_its_limits_goes_on_as_it_is() {
    let fits = |lines: &[&str]| baggage::fits(lines.iter().map(|line| line.as_bytes()));
    let cut = |lines: &[&str]| {
        let (kept, dropped) = baggage::cut(lines.iter().map(|line| line.as_bytes()));
        (String::from_utf8(kept).unwrap(), dropped)
    };
    assert!(fits(&["a=1,b=2", "c=3"]));
    assert_eq!(cut(&["a=1, b=2", "c=3"]), ("a=1,b=2,c=3".into(), 0));
    let members = (0..200).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    assert!(!fits(&[&members]));
    let (kept, dropped) = cut(&[&members]);
    assert_eq!((kept.split(',').count(), dropped), (180, 20));
    let large = format!("a={},b=1", "x".repeat(9000));
    assert!(!fits(&[&large]));
    assert_eq!(cut(&[&large]), ("b=1".into(), 1));
    let halves = "y".repeat(4094);
    assert!(fits(&[&halves, &halves]));
    assert!(!fits(&[&halves, &halves, "zzzz"]));
}

#[test]
fn baggage_names_the_workflow() {
    let read = |text: &str| {
        let mut room = [0; 16];
        baggage::workflow(std::iter::once(text.as_bytes()), &mut room).map(str::to_owned)
    };
    assert_eq!(read("workflow.id=w1"), Some("w1".into()));
    assert_eq!(read("a=b , workflow.id = w%2F1%20x ;ttl=3"), Some("w/1 x".into()));
    assert_eq!(read("workflow.id=100%"), Some("100%".into()));
    assert_eq!(read("workflow.id=%zz"), Some("%zz".into()));
    for none in [
        "",
        "workflow.ids=1",
        "a.workflow.id=1",
        "workflow.id=",
        "workflow.id=%ff",
        "workflow.id=%0a",
        "workflow.id=12345678901234567",
    ] {
        assert_eq!(read(none), None, "{none}");
    }
}

#[test]
fn propagators() {
    assert_eq!("tracecontext,baggage".parse(), Ok(Propagators::default()));
    assert_eq!(" b3 , b3multi".parse(), Ok(Propagators { b3: true, b3multi: true, ..Propagators::NONE }));
    assert_eq!("none".parse(), Ok(Propagators::NONE));
    for bad in ["", "jaeger", "tracecontext,", "none,b3"] {
        assert!(bad.parse::<Propagators>().unwrap_err().contains("expected some of"), "{bad}");
    }
}

#[test]
fn headers_are_fuzzed() {
    let seeds: Vec<String> = vec![
        format!("00-{TRACE}-{SPAN}-01"),
        format!("cc-{TRACE}-{SPAN}-03-x"),
        format!("{TRACE}-{SPAN}-d-{SPAN}"),
        format!("{TRACE}\n{SPAN}\n1\n0"),
        "foo=1,bar=2\nbaz@x=3".into(),
        "workflow.id=a%20b;p=1,k=v\nx=y".into(),
        format!("a={}\nb={}", "x".repeat(5000), "y".repeat(4000)),
    ];
    let seeds: Vec<&[u8]> = seeds.iter().map(|seed| seed.as_bytes()).collect();
    crate::fuzzing::run(&seeds, fuzz);
}
