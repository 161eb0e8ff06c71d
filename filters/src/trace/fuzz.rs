//! What holds for any header of a trace, for the fuzzers.

use super::{TraceContext, b3, baggage, w3c};

/// Entry for the fuzzers: no input panics, what is read can be written and read again, and baggage that was cut fits.
pub fn fuzz(data: &[u8]) {
    for said in [w3c::parse(data), b3::parse(data)].into_iter().flatten() {
        let Some((trace, span)) = said.parent else { continue };
        assert!(!trace.is_none() && !span.is_none());
        let context = TraceContext { trace, span, sampled: said.sampled == Some(true), random: said.random };
        let again = w3c::parse(&w3c::print(&context));
        assert_eq!(again.and_then(|again| again.parent), said.parent);
        let again = b3::parse(&b3::print(&context));
        assert_eq!(
            again.map(|again| (again.parent, again.sampled)),
            Some((said.parent, Some(context.sampled)))
        );
    }
    let lines = || data.split(|byte| *byte == b'\n');
    if w3c::judge(lines()) == w3c::State::Join {
        let joined: Vec<u8> = lines().collect::<Vec<_>>().join(&b","[..]);
        assert_eq!(w3c::judge(std::iter::once(&*joined)), w3c::State::Good);
    }
    let (kept, dropped) = baggage::cut(lines());
    assert!(baggage::fits(std::iter::once(&*kept)));
    assert!(dropped == 0 || !baggage::fits(lines()));
    let mut room = [0; 64];
    let _ = baggage::workflow(lines(), &mut room);
    let mut parts = lines();
    let _ = b3::parse_parts(parts.next(), parts.next(), parts.next(), parts.next());
}
