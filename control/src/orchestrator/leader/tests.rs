//! The election, with time injected.

use super::*;
use crate::store::memory::Memory;

fn elector(store: &Arc<Memory>, name: &str) -> Elector {
    Elector::new(store.clone(), name.into(), format!("https://{name}:15012"))
}

fn decision(text: &'static str) -> Batch {
    Batch { put: vec![("placement/node/n".into(), Bytes::from_static(text.as_bytes()))], ..Batch::default() }
}

fn away() -> StoreError {
    StoreError::Unavailable { why: "gone".into(), unsure: false }
}

#[tokio::test(start_paused = true)]
async fn the_first_leads_and_the_others_say_where_it_is() {
    let store = Arc::new(Memory::new());
    let (mut a, mut b) = (elector(&store, "a"), elector(&store, "b"));
    assert_eq!(a.role(), Role::Unknown);
    assert!(matches!(a.tick(7).await, Role::Leader { .. }));
    let Role::Follower { leader: Some(record) } = b.tick(3).await else { panic!("b does not follow") };
    assert_eq!(
        (record.control.as_str(), record.address.as_str(), record.documents),
        ("a", "https://a:15012", 7)
    );
    // As long as it is renewed nobody takes it.
    for _ in 0..30 {
        tokio::time::advance(RENEW_EVERY).await;
        assert!(matches!(a.tick(7).await, Role::Leader { .. }));
        assert!(matches!(b.tick(3).await, Role::Follower { leader: Some(_) }));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_was_overtaken_writes_nothing() {
    let store = Arc::new(Memory::new());
    let (mut a, mut b) = (elector(&store, "a"), elector(&store, "b"));
    let Role::Leader { term: first } = a.tick(0).await else { panic!("a does not lead") };
    a.write(decision("by a")).await.unwrap();
    b.tick(0).await;
    // It is stopped, as by SIGSTOP.
    tokio::time::advance(LEASE).await;
    let Role::Leader { term } = b.tick(0).await else { panic!("b does not lead") };
    assert!(term > first);
    b.write(decision("by b")).await.unwrap();
    // It goes on, and its clock says that its lease is over.
    assert_eq!(a.role(), Role::Paused { term: first });
    assert!(a.write(decision("late")).await.is_err());
    // Even with a clock that stood still.
    if let Some(held) = &mut a.held {
        held.renewed = Instant::now();
    }
    assert_eq!(a.write(decision("late")).await, Err(NotWritten::Overtaken));
    assert_eq!(&store.get("placement/node/n").await.unwrap().unwrap().value[..], b"by b");
    assert!(matches!(a.tick(0).await, Role::Follower { leader: Some(record) } if record.control == "b"));
}

#[tokio::test(start_paused = true)]
async fn with_the_store_away_the_lease_ends_and_the_term_goes_on_after() {
    let store = Arc::new(Memory::new());
    let mut a = elector(&store, "a");
    let lead = a.tick(0).await;
    let Role::Leader { term } = lead else { panic!("a does not lead") };
    store.fail(Some(away()));
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(a.tick(0).await, lead, "a short outage changes nothing");
    assert!(matches!(a.write(decision("x")).await, Err(NotWritten::Store(_))));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(a.tick(0).await, Role::Paused { term });
    store.fail(None);
    assert!(matches!(a.write(decision("x")).await, Err(NotWritten::Store(_))), "not before it is renewed");
    assert_eq!(a.tick(0).await, lead, "nobody took it meanwhile");
    a.write(decision("x")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restarted_one_takes_its_own_record_at_once_and_one_that_resigns_is_followed_at_once() {
    let store = Arc::new(Memory::new());
    let mut a = elector(&store, "a");
    let Role::Leader { term: first } = a.tick(0).await else { panic!("a does not lead") };
    let mut again = elector(&store, "a");
    let Role::Leader { term } = again.tick(0).await else { panic!("the new process does not lead") };
    assert!(term > first);
    assert_eq!(a.write(decision("old process")).await, Err(NotWritten::Overtaken));
    let mut b = elector(&store, "b");
    assert!(matches!(b.tick(0).await, Role::Follower { leader: Some(_) }));
    again.resign().await;
    assert!(matches!(b.tick(0).await, Role::Leader { .. }));
}

/// Electors that are stopped, go on, and lose the store at random: those that write are of one term, and terms count up.
#[tokio::test(start_paused = true)]
async fn never_do_two_write_in_turn() {
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let store = Arc::new(Memory::new());
        let mut electors: Vec<Elector> = ["a", "b", "c"].iter().map(|name| elector(&store, name)).collect();
        let mut highest = 0;
        let mut writes = 0;
        for _ in 0..300 {
            tokio::time::advance(Duration::from_millis(rng.u64(50..2000))).await;
            store.fail((rng.u8(..10) == 0).then(away));
            let at = rng.usize(..3);
            // One that is not ticked is stopped; what it thinks of itself it thinks on.
            let role = if rng.u8(..4) > 0 { electors[at].tick(0).await } else { electors[at].role() };
            let term = electors[at].held.map(|held| held.term);
            if electors[at].write(decision("x")).await.is_ok() {
                let term = term.unwrap();
                assert!(term >= highest, "seed {seed}: {term} wrote after {highest}");
                assert_eq!(role, Role::Leader { term });
                highest = term;
                writes += 1;
            }
            let leading = electors.iter().filter(|one| matches!(one.role(), Role::Leader { .. })).count();
            assert!(leading <= 1, "seed {seed}: {leading} lead");
        }
        assert!(writes > 5, "seed {seed}: {writes}");
    }
}
