//! Limits under several threads.

use super::*;

#[test]
fn limits_hold_under_four_threads_and_every_place_comes_back() {
    const LIMIT: u32 = 5;
    let limits = Arc::new(ClusterLimits::default());
    let (held, most, taken) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut permits = Vec::new();
                for round in 0..20_000 {
                    if let Ok(permit) = ConnectionPermit::try_acquire(&limits, Some(LIMIT)) {
                        most.fetch_max(held.fetch_add(1, Relaxed) + 1, Relaxed);
                        taken.fetch_add(1, Relaxed);
                        permits.push(permit);
                    }
                    if round % 3 == 0 && !permits.is_empty() {
                        held.fetch_sub(1, Relaxed);
                        permits.pop();
                    }
                }
                held.fetch_sub(permits.len() as u32, Relaxed);
            });
        }
    });
    assert_eq!(limits.connections(), 0);
    assert!(most.load(Relaxed) <= LIMIT, "{most:?}");
    assert!(taken.load(Relaxed) > 1000, "{taken:?}");
}

#[test]
fn each_kind_of_place_is_counted_apart_and_says_which_limit_was_reached() {
    let limits = Arc::new(ClusterLimits::default());
    let connection = ConnectionPermit::try_acquire(&limits, Some(1)).unwrap();
    let pending = PendingPermit::try_acquire(&limits, Some(1)).unwrap();
    assert_eq!((limits.connections(), limits.pending(), limits.requests()), (1, 1, 0));
    let deny = ConnectionPermit::try_acquire(&limits, Some(1)).unwrap_err();
    assert_eq!(deny.reason, Reason::Overflow);
    assert!(deny.detail.unwrap().contains("maxConnections 1"));
    assert!(PendingPermit::try_acquire(&limits, Some(0)).unwrap_err().detail.unwrap().contains("Pending"));
    drop((connection, pending));
    assert_eq!((limits.connections(), limits.pending()), (0, 0));
}

#[test]
fn a_limit_lowered_by_a_reload_counts_what_is_open_already() {
    let limits = Arc::new(ClusterLimits::default());
    let open: Vec<_> = (0..3).map(|_| ConnectionPermit::try_acquire(&limits, None).unwrap()).collect();
    assert!(ConnectionPermit::try_acquire(&limits, Some(2)).is_err());
    drop(open);
    assert!(ConnectionPermit::try_acquire(&limits, Some(2)).is_ok());
}
