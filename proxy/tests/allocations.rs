//! What telemetry, tokens and policies may not cost: memory, for calls whose traces nobody keeps, and callers that were seen before. Real calls go through a worker of this process, whose
//! thread counts what it allocates.
// The test's own helpers fail the test as the test itself does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]
#![allow(
    unsafe_code,
    reason = "an allocator can only be counted from within; it hands everything on to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use clap::Parser;
use pilotfish_proxy::bootstrap::Settings;
use pilotfish_proxy::listen::bind;
use pilotfish_proxy::net::Listener;
use pilotfish_proxy::server::{Shared, run_worker};
use pilotfish_proxy::source::Publisher;
use pilotfish_proxy::telemetry::call::CallRecord;
use pilotfish_proxy::worker::Worker;
use pilotfish_testkit::tokens::{Signer, key_set};
use pilotfish_testkit::{H1, Origin};

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

thread_local! {
    /// Whether this thread's allocations count.
    static COUNTS: Cell<bool> = const { Cell::new(false) };
}

/// Allocations of the worker's thread, and those that have room for a call's record.
static COUNT: AtomicU64 = AtomicU64::new(0);
static LARGE: AtomicU64 = AtomicU64::new(0);

fn count(size: usize) {
    if COUNTS.try_with(Cell::get).unwrap_or(false) {
        COUNT.fetch_add(1, Relaxed);
        // Exactly a record: buffers of connections are larger still.
        LARGE.fetch_add(u64::from(size == size_of::<CallRecord>()), Relaxed);
    }
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Calls in one measurement.
const BATCH: u64 = 200;

/// What a call allocates when every hook of telemetry is taken out of its path, as was measured once by doing so: its head, the
/// answer's head, buffers.
const OF_A_CALL: u64 = 5;

/// What so many calls with these headers allocate on the worker, at least, with these flags; the ring is long full by then.
async fn measure(flags: &[&str], inbound: bool, headers: &[&str], more: &str) -> (u64, u64) {
    let origin = Origin::plain().await;
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a}}\nspec:\n  hosts: [a.test]\n  \
         ports: [{{number: 80, name: web, protocol: HTTP}}]\n  resolution: STATIC\n  endpoints:\n  - {{address: 127.0.0.1, \
         ports: {{web: {}}}}}\n{more}",
        origin.port()
    );
    std::fs::write(folder.path().join("a.yaml"), yaml).unwrap();
    let config = folder.path().to_str().unwrap();
    let app = origin.addr().to_string();
    let mut arguments =
        vec!["pilotfish-proxy", "--agent", "a", "--config", config, "--call-ring", "16", "--app", &app];
    arguments.extend(flags);
    let settings = Settings::try_parse_from(arguments).unwrap();
    let (shared, _questions) = Shared::new(settings).unwrap();
    let listeners = [bind("127.0.0.1:0".parse().unwrap(), 1), bind("127.0.0.1:0".parse().unwrap(), 1)];
    let listeners = listeners.map(|listeners| listeners.unwrap().remove(0));
    let to = listeners[usize::from(inbound)].local_addr().unwrap();
    // Configured before the worker counts: names are resolved, nothing is compiled later.
    tokio::task::spawn_blocking({
        let shared = shared.clone();
        move || Publisher::new(shared).reload().map_err(|refused| refused.lines).unwrap()
    })
    .await
    .unwrap();
    shared.audit.start(&shared);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build_local(Default::default()).unwrap();
        runtime.block_on(async {
            let [outbound, inbound] = listeners;
            let listeners = [Listener::of(outbound).unwrap(), Listener::of(inbound).unwrap()];
            let worker = Worker::new(0, shared);
            COUNTS.set(true);
            tokio::select! {
                biased;
                result = run_worker(worker, listeners) => result.unwrap(),
                _ = stopped => {}
            }
            COUNTS.set(false);
        });
        let _ = ended.send(());
    });
    let mut client = H1::connect(to).await.patience(Duration::from_secs(20));
    let mut least = (u64::MAX, u64::MAX);
    // What happens once a second, as the sweep of kept connections, falls into some measurements and not into all.
    for batch in 0..5 {
        let before = (COUNT.load(Relaxed), LARGE.load(Relaxed));
        for _ in 0..BATCH {
            assert_eq!(client.get("a.test", "/", headers).await.unwrap().status(), 200);
        }
        let made = (COUNT.load(Relaxed) - before.0, LARGE.load(Relaxed) - before.1);
        if batch > 0 {
            least = (least.0.min(made.0), least.1.min(made.1));
        }
    }
    drop(stop);
    tokio::task::spawn_blocking(move || end.recv().unwrap()).await.unwrap();
    least
}

/// One test, because the count is one for the process.
#[tokio::test]
async fn decisions_known_tokens_and_calls_that_are_not_sampled_take_no_memory() {
    let parent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let none = ["--trace-sampling", "off", "--trace-propagators", "none", "--trace-inference", "off"];
    for inbound in [false, true] {
        let (least, records) = measure(&none, inbound, &[], "").await;
        assert_eq!(records, 0, "records are used again");
        assert!(least <= OF_A_CALL * BATCH + BATCH / 10, "{least} allocations in {BATCH} calls");
        for (flags, headers) in [
            // The trace goes on, is looked for among the calls that are served, and is told in every way.
            (&["--trace-sampling", "off"][..], &[][..]),
            (&["--trace-sampling", "10/s+1%"], &[parent]),
            (
                &["--trace-sampling", "off", "--trace-propagators", "tracecontext,b3"],
                &[parent, "agent-workflow: w"],
            ),
        ] {
            let (made, records) = measure(flags, inbound, headers, "").await;
            assert_eq!(records, 0, "{flags:?}");
            // Its connection has a buffer more at times, and a timer; a call has nothing more.
            assert!(
                made <= least + BATCH / 10,
                "{flags:?} {headers:?} inbound {inbound}: {made} allocations in {BATCH} calls, {least} without"
            );
        }
    }
    a_known_token_takes_no_memory(&none).await;
    a_decision_takes_no_memory(&none).await;
    a_record_of_the_audit_log_takes_no_memory(&none).await;
}

/// Policies of every action, with what may be compared.
async fn a_decision_takes_no_memory(flags: &[&str]) {
    let of = |name: &str, action: &str, rule: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}}}\nspec:\n  action: {action}\n  \
             rules:\n  - {rule}\n"
        )
    };
    let policies = of(
        "a",
        "DENY",
        "{to: [{operation: {paths: [/admin, '/x/{*}/y'], hosts: [B.test], notMethods: [GET]}}]}",
    ) + &of(
        "b",
        "DENY",
        "{when: [{key: 'request.headers[x-role]', values: [admin]}, {key: source.ip, values: [10.0.0.0/8]}]}",
    ) + &of("c", "AUDIT", "{when: [{key: 'request.headers[x-role]', notValues: [user]}]}")
        + &of("d", "ALLOW", "{to: [{operation: {methods: [POST]}}]}")
        + &of(
            "e",
            "ALLOW",
            "{to: [{operation: {methods: [GET], paths: ['/*'], hosts: ['*.test'], notHosts: [b.test]}}]}",
        );
    let (least, _) = measure(flags, true, &["x-role: user"], "").await;
    let (made, _) = measure(flags, true, &["x-role: user"], &policies).await;
    assert!(made <= least + BATCH / 10, "{made} allocations in {BATCH} calls with policies, {least} without");
}

/// Every call is recorded, against none.
async fn a_record_of_the_audit_log_takes_no_memory(flags: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let audit = ["--audit", "all", "--audit-dir", folder.path().to_str().unwrap()];
    let (without, _) = measure(flags, true, &[], "").await;
    let (with, _) = measure(&[flags, &audit].concat(), true, &[], "").await;
    // Of each batch some entries are new, as long as more of them were never under way at once.
    assert!(with <= without + BATCH / 10, "{with} allocations in {BATCH} calls, {without} without records");
}

/// A caller's token that was seen before, against a header that is no token to anybody.
async fn a_known_token_takes_no_memory(flags: &[&str]) {
    let signer = Signer::new("ES256", "k");
    let rule = format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: t}}\nspec:\n  jwtRules:\n  - issuer: i\n    \
         jwks: '{}'\n    outputClaimToHeaders: [{{header: x-user, claim: sub}}]\n",
        key_set([&signer])
    );
    let bearer =
        format!("authorization: Bearer {}", signer.token(&serde_json::json!({"iss": "i", "sub": "alice"})));
    let (least, _) = measure(flags, true, &[&bearer], "").await;
    let (made, _) = measure(flags, true, &[&bearer], &rule).await;
    assert!(made <= least + BATCH / 10, "{made} allocations in {BATCH} calls with a token, {least} without");
}
