//! What calls belong to: by id, alone, by conversation, or one of several.

use super::*;

fn inherited(hops: u8, agents: &str) -> Inherited {
    Inherited { hops, agents: Agents::parse(agents).unwrap_or_default(), ..Inherited::default() }
}

fn keys(session: Option<&str>, task: Option<&str>) -> Keys {
    let text = |text: Option<&str>| text.map(Box::from);
    Keys::of(&Call { session: text(session), task_id: text(task), ..Call::default() })
}

#[test]
fn nothing_in_flight_is_no_origin_and_the_only_call_is_it() {
    let mut table = Table::default();
    assert!(matches!(table.find(None, &Keys::default()), Correlation::None));
    let call = table.begin(inherited(3, "default/a"), Keys::default(), 7).unwrap();
    let Correlation::Inferred(found) = table.find(None, &keys(Some("other"), None)) else { panic!() };
    assert_eq!(found.id, call.id);
    table.end(Some(&call));
    assert!(matches!(table.find(Some(call.id), &Keys::default()), Correlation::None));
}

#[test]
fn an_id_is_certain_and_a_forged_or_old_one_says_nothing() {
    let mut table = Table::default();
    let one = table.begin(inherited(1, "default/a"), Keys::default(), 1).unwrap();
    let two = table.begin(inherited(5, "default/b"), Keys::default(), 2).unwrap();
    for call in [&one, &two] {
        let said = CallId::parse(call.id.to_string().as_bytes());
        let Correlation::Certain(found) = table.find(said, &Keys::default()) else { panic!() };
        assert_eq!(found.id, call.id);
    }
    let forged = CallId { nonce: 99, ..one.id };
    assert!(matches!(table.find(Some(forged), &Keys::default()), Correlation::Ambiguous(_)));
    table.end(Some(&two));
    let again = table.begin(inherited(5, "default/b"), Keys::default(), 3).unwrap();
    assert_eq!(again.id.place, two.id.place);
    assert!(matches!(table.find(Some(two.id), &Keys::default()), Correlation::Ambiguous(_)));
    for bad in ["", "1", "00000000000000000000000g", "+0000000000000000000000001", "+00000000000000000000001"]
    {
        assert_eq!(CallId::parse(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn a_conversation_in_common_decides_the_most_specific_first() {
    let mut table = Table::default();
    let one = table.begin(inherited(1, "default/a"), keys(Some("s"), Some("t1")), 1).unwrap();
    let two = table.begin(inherited(2, "default/b"), keys(Some("s"), Some("t2")), 2).unwrap();
    let three = table.begin(inherited(9, "default/c"), keys(Some("r"), None), 3).unwrap();
    let found = |wanted: &Keys| match table.find(None, wanted) {
        Correlation::Inferred(served) => vec![served.id],
        Correlation::Ambiguous(all) => all.ids,
        other => panic!("{other:?}"),
    };
    assert_eq!(found(&keys(Some("s"), Some("t2"))), [two.id]);
    assert_eq!(found(&keys(Some("s"), None)), [one.id, two.id]);
    assert_eq!(found(&keys(Some("r"), Some("unknown"))), [three.id]);
    assert_eq!(found(&keys(Some("unknown"), None)), [one.id, two.id, three.id]);
    // A task is no session, though their texts may be the same.
    assert_eq!(found(&keys(Some("t1"), None)).len(), 3);
}

#[test]
fn of_several_only_what_holds_for_all_is_certain_and_the_depth_is_the_largest() {
    let mut table = Table::default();
    table.begin(inherited(2, "default/a,default/b"), Keys::default(), 1).unwrap();
    let mut high = inherited(7, "default/x,default/b");
    high.priority = Priority::Critical;
    table.begin(high, Keys::default(), 2).unwrap();
    let Correlation::Ambiguous(all) = table.find(None, &Keys::default()) else { panic!() };
    assert_eq!((all.hops, all.priority), (7, Priority::Critical));
    assert_eq!(all.agents, Agents::parse("default/b").unwrap());
    for n in 0..LOOKED_AT as u64 {
        table.begin(inherited(1, "default/b"), Keys::default(), n).unwrap();
    }
    let Correlation::Ambiguous(all) = table.find(None, &Keys::default()) else { panic!() };
    assert_eq!((all.hops, all.agents, all.ids.len()), (7, Agents::default(), LOOKED_AT));
}

#[test]
fn the_table_is_bounded_and_one_that_has_no_place_leaves_nothing_certain() {
    let mut table = Table::default();
    let calls: Vec<_> = (0..MOST as u64)
        .map(|n| table.begin(inherited(1, "default/a"), Keys::default(), n).unwrap())
        .collect();
    assert!(table.begin(inherited(2, "default/b"), Keys::default(), 0).is_none());
    assert_eq!(table.len(), MOST + 1);
    calls.iter().skip(1).for_each(|call| table.end(Some(call)));
    assert_eq!(table.len(), 2);
    assert!(matches!(table.find(None, &Keys::default()), Correlation::Ambiguous(_)));
    table.end(None);
    assert!(matches!(table.find(None, &Keys::default()), Correlation::Inferred(_)));
}

#[test]
fn who_is_served_now_is_not_taken_for_whom_a_call_names_that_has_ended() {
    let mut table = Table::default();
    let old = table.begin(inherited(1, "default/a"), keys(Some("s"), None), 1).unwrap();
    table.end(Some(&old));
    let only = table.begin(inherited(5, "default/b"), keys(Some("s"), None), 2).unwrap();
    for key in [Keys::default(), keys(Some("s"), None)] {
        let Correlation::Ambiguous(all) = table.find(Some(old.id), &key) else { panic!() };
        assert_eq!((all.hops, all.ids), (5, vec![only.id]), "what bounds it bounds it all the same");
    }
    table.end(Some(&only));
    assert!(matches!(table.find(Some(old.id), &Keys::default()), Correlation::None));
}

/// Random calls come and go; whatever is asked is answered as a plain search through all of them answers it.
#[test]
fn model() {
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..60 {
        let mut table = Table::default();
        let mut live: Vec<(Arc<Served>, Keys)> = Vec::new();
        for step in 0..400 {
            let name = |n: u8| format!("n{n}");
            let session = rng.bool().then(|| name(rng.u8(..4)));
            let task = rng.bool().then(|| name(rng.u8(..4)));
            let key = keys(session.as_deref(), task.as_deref());
            if rng.u8(..3) > 0 && live.len() < 40 {
                let path: Vec<String> = (0..rng.u8(1..4)).map(|_| format!("ns/{}", rng.u8(..5))).collect();
                let mut inherited = inherited(rng.u8(1..70), &path.join(","));
                inherited.trace.trace = TraceId([rng.u8(1..4); 16]);
                let call = table.begin(inherited, key, step).unwrap();
                call.begin_try(SpanId((step + 1).to_be_bytes()));
                live.push((call, key));
            } else if !live.is_empty() {
                let (call, _) = live.swap_remove(rng.usize(..live.len()));
                table.end(Some(&call));
                table.reuse(call);
            }
            assert_eq!(table.len(), live.len());
            let said = rng.choice(&live).filter(|_| step % 3 == 0).map(|(call, _)| call.id);
            let of_key = |key: u64| {
                let same = live.iter().filter(|(_, keys)| keys.iter().any(|own| own == key));
                same.map(|(call, _)| call).collect::<Vec<_>>()
            };
            let expected = match key.iter().map(of_key).find(|same| !same.is_empty()) {
                _ if live.len() <= 1 => live.iter().map(|(call, _)| call).collect(),
                Some(same) => same,
                None => live.iter().map(|(call, _)| call).collect(),
            };
            let joined = table.find_trace(said, &key);
            let belongs = match said {
                Some(id) => live.iter().map(|(call, _)| call).filter(|call| call.id == id).collect(),
                None => expected.clone(),
            };
            let traces: BTreeSet<TraceId> = belongs.iter().map(|call| call.inherited.trace.trace).collect();
            let common = traces.first().filter(|_| traces.len() == 1 && belongs.len() <= LOOKED_AT);
            assert_eq!(joined.as_ref().map(|joined| joined.handed.trace).as_ref(), common);
            if let Some(joined) = joined {
                let span = if belongs.len() == 1 { belongs[0].client() } else { SpanId::default() };
                assert_eq!(joined.span, span);
            }
            match table.find(said, &key) {
                Correlation::Certain(found) => assert_eq!(Some(found.id), said),
                Correlation::None => assert!(live.is_empty()),
                Correlation::Inferred(found) => {
                    assert!(said.is_none() && expected.len() == 1 && expected[0].id == found.id);
                }
                Correlation::Ambiguous(all) => {
                    assert!(said.is_none() && expected.len() > 1);
                    assert_eq!(Some(all.hops), expected.iter().map(|call| call.inherited.hops).max());
                    for agent in all.agents.iter() {
                        let has = |call: &&Arc<Served>| call.inherited.agents.iter().any(|own| own == agent);
                        assert!(expected.iter().all(has), "{agent} is not on every path");
                    }
                }
            }
        }
    }
}
