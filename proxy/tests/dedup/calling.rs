//! Two sidecars and two replicas: where the calling sidecar may send a call with a key once more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pilotfish_testkit::h1::Answer;
use pilotfish_testkit::origin::{Step, ok};
use pilotfish_testkit::{H1, Origin, Sidecar};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::until;
use crate::tls::setup::Mesh;

/// A way to a sidecar that can be cut, and led elsewhere.
struct Cable {
    addr: SocketAddr,
    to: watch::Sender<Option<SocketAddr>>,
    /// Connections through it.
    through: Arc<AtomicUsize>,
}

impl Cable {
    async fn to(addr: SocketAddr) -> Cable {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (to, leads) = watch::channel(Some(addr));
        let addr = listener.local_addr().unwrap();
        let through = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&through);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut leads = leads.clone();
                let to = *leads.borrow_and_update();
                let count = Arc::clone(&count);
                count.fetch_add(1, Relaxed);
                tokio::spawn(async move {
                    let _counted = Counted(count);
                    let Some(to) = to else { return };
                    let Ok(mut far) = TcpStream::connect(to).await else { return };
                    tokio::select! {
                        _ = leads.changed() => {}
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                    }
                });
            }
        });
        Cable { addr, to, through }
    }

    /// Breaks what goes through it; new connections lead where they did.
    fn break_off(&self) {
        self.to.send_modify(|_| {});
    }

    /// As [`Cable::cut`], and waits until nothing goes through it any more.
    async fn lead(&self, to: SocketAddr) {
        self.cut(Some(to));
        until("what went through it is broken", || self.through.load(Relaxed) == 0).await;
    }

    /// Breaks what goes through it; new connections lead to `to`, or break at once.
    fn cut(&self, to: Option<SocketAddr>) {
        self.to.send_replace(to);
    }
}

/// A connection through a cable, while there is one.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// An agent with a sidecar, behind a cable. It answers when the gate says so.
struct Replica {
    origin: Origin,
    sidecar: Option<Sidecar>,
    cable: Cable,
}

impl Replica {
    async fn start(mesh: &Mesh, name: &str, gate: &Arc<Semaphore>) -> Replica {
        let (own, gate) = (name.to_owned(), Arc::clone(gate));
        let origin = Origin::start(move |_, _| {
            [vec![Step::Gate(Arc::clone(&gate))], ok(format!("done by {own}"))].concat()
        });
        let origin = origin.await;
        let sidecar = mesh.sidecar("callee").app(origin.addr()).start();
        let cable = Cable::to(sidecar.inbound).await;
        Replica { origin, sidecar: Some(sidecar), cable }
    }

    /// How often the agent was asked to do something.
    fn executions(&self) -> usize {
        self.origin.requests().len()
    }
}

/// Two replicas of `s.test`, and a caller.
struct World {
    mesh: Mesh,
    caller: Sidecar,
    replicas: [Replica; 2],
    gate: Arc<Semaphore>,
}

impl World {
    async fn start() -> World {
        let (mesh, gate) = (Mesh::new(), Arc::new(Semaphore::new(0)));
        let replicas = [Replica::start(&mesh, "one", &gate).await, Replica::start(&mesh, "two", &gate).await];
        let endpoint = |replica: &Replica| {
            format!(
                "  - address: 127.0.0.1\n    ports: {{ web: {} }}\n    labels: {{ pilotfish.dev/agent: callee, \
                 pilotfish.dev/mesh: \"true\" }}\n",
                replica.cable.addr.port()
            )
        };
        let endpoints: String = replicas.iter().map(endpoint).collect();
        let yaml = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: s\nspec:\n  hosts: [s.test]\n  \
             ports:\n  - {{ number: 80, name: web, protocol: HTTP }}\n  resolution: STATIC\n  endpoints:\n{endpoints}"
        );
        let caller = mesh.sidecar("caller").workers(2).yaml("a.yaml", yaml).start();
        World { mesh, caller, replicas, gate }
    }

    /// One in which the caller has heard of both windows.
    async fn learnt() -> World {
        let world = World::start().await;
        for n in 0.. {
            world.gate.add_permits(1);
            assert_eq!(world.call(&post(&format!("learn-{n}"))).await.status(), 200);
            if world.replicas.iter().all(|replica| replica.executions() > 0) {
                break;
            }
        }
        world.replicas.iter().for_each(|replica| replica.origin.forget());
        world
    }

    async fn call(&self, request: &str) -> Answer {
        H1::connect(self.caller.outbound).await.ask(request).await.unwrap()
    }

    /// Sends a call that waits at the gate: the call, and which replica does it.
    async fn begin(&self, request: String) -> (JoinHandle<Answer>, usize) {
        let outbound = self.caller.outbound;
        let before = self.executions();
        let call = tokio::spawn(async move { H1::connect(outbound).await.ask(request).await.unwrap() });
        until("an agent has it", || self.executions() != before).await;
        let at = (0..2).find(|at| self.executions()[*at] != before[*at]).unwrap();
        (call, at)
    }

    /// How often each agent was asked to do something.
    fn executions(&self) -> [usize; 2] {
        [self.replicas[0].executions(), self.replicas[1].executions()]
    }

    /// A new sidecar beside the same agent.
    fn restart(&mut self, at: usize) -> SocketAddr {
        let replica = &mut self.replicas[at];
        replica.sidecar = None;
        let sidecar = self.mesh.sidecar("callee").app(replica.origin.addr()).start();
        replica.sidecar.insert(sidecar).inbound
    }
}

fn post(key: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: s.test\r\nidempotency-key: {key}\r\ncontent-length: 4\r\n\r\nbody")
}

fn refused(answer: &Answer) -> (u16, String) {
    (answer.status(), answer.reason())
}

fn once_at(at: usize) -> [usize; 2] {
    let mut executions = [0; 2];
    executions[at] = 1;
    executions
}

#[tokio::test]
async fn dedup_a_call_whose_reply_is_cut_is_done_once_and_answered() {
    let world = World::learnt().await;
    for key in ["first", "second"] {
        world.replicas.iter().for_each(|replica| replica.origin.forget());
        let (call, at) = world.begin(post(key)).await;
        world.replicas[at].cable.break_off();
        world.gate.add_permits(1);
        let answer = call.await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(answer.text(), ["done by one", "done by two"][at]);
        assert_eq!(world.executions(), once_at(at));
        assert_eq!(answer.header("x-pilotfish-dedup-epoch"), None, "between sidecars only");
        // The agent itself sends it again, as often as it likes.
        for _ in 0..4 {
            assert_eq!(world.call(&post(key)).await.text(), answer.text());
        }
        assert_eq!(world.executions(), once_at(at));
    }
}

#[tokio::test]
async fn dedup_a_call_whose_sidecar_died_is_done_once_and_nobody_knows() {
    let mut world = World::learnt().await;
    let (call, at) = world.begin(post("k")).await;
    world.replicas[at].sidecar = None;
    world.replicas[at].cable.cut(None);
    assert_eq!(refused(&call.await.unwrap()), (502, "outcome-unknown".into()));
    assert_eq!(
        refused(&world.call(&post("k")).await),
        (502, "outcome-unknown".into()),
        "sent again by the agent"
    );
    assert_eq!(world.executions(), once_at(at));
    world.gate.add_permits(2);
    assert_eq!(world.call(&post("other")).await.status(), 200, "another call goes to the other replica");
    assert_eq!(world.executions(), [1, 1]);
}

#[tokio::test]
async fn dedup_a_call_whose_sidecar_restarted_is_done_once_and_nobody_knows() {
    let mut world = World::learnt().await;
    let (call, at) = world.begin(post("k")).await;
    let new = world.restart(at);
    world.replicas[at].cable.cut(Some(new));
    assert_eq!(refused(&call.await.unwrap()), (502, "outcome-unknown".into()));
    world.gate.add_permits(8);
    assert_eq!(
        refused(&world.call(&post("k")).await),
        (502, "outcome-unknown".into()),
        "sent again by the agent"
    );
    assert_eq!(world.executions(), once_at(at));
}

#[tokio::test]
async fn dedup_a_window_that_was_another_before_the_call_costs_nothing_but_a_try() {
    let mut world = World::learnt().await;
    for at in 0..2 {
        let new = world.restart(at);
        world.replicas[at].cable.lead(new).await;
    }
    world.gate.add_permits(8);
    for key in ["a", "b", "c", "d"] {
        let answer = world.call(&post(key)).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    assert_eq!(world.executions().iter().sum::<usize>(), 4);
}

#[tokio::test]
async fn dedup_nothing_is_repeated_at_an_endpoint_of_which_no_window_is_known() {
    let world = World::start().await;
    let (call, at) = world.begin(post("k")).await;
    world.replicas[at].cable.break_off();
    world.gate.add_permits(8);
    assert_eq!(refused(&call.await.unwrap()), (502, "upstream-reset".into()));
    assert_eq!(world.executions(), once_at(at));
}

#[tokio::test]
async fn dedup_calls_with_one_key_at_once_go_to_one_replica() {
    let world = World::learnt().await;
    let (first, at) = world.begin(post("k")).await;
    let mut calls = vec![first];
    for _ in 0..6 {
        let outbound = world.caller.outbound;
        calls.push(tokio::spawn(async move { H1::connect(outbound).await.ask(post("k")).await.unwrap() }));
    }
    world.gate.add_permits(8);
    for call in calls {
        assert_eq!(call.await.unwrap().text(), ["done by one", "done by two"][at]);
    }
    assert_eq!(world.executions(), once_at(at));
}

#[tokio::test]
async fn dedup_takes_the_id_of_an_a2a_message_for_a_key() {
    let world = World::start().await;
    world.gate.add_permits(16);
    let message = |id: &str| {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{{"message":{{"messageId":"{id}","parts":[]}}}}}}"#
        );
        format!(
            "POST /a2a HTTP/1.1\r\nhost: s.test\r\na2a-version: 1.0\r\ncontent-type: application/json\r\n\
             x-pilotfish-idempotency-key: mine\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    // Windows are learnt by the first call to each replica; from then on a message stays where it was.
    let mut n = 0;
    while world.executions().contains(&0) {
        n += 1;
        assert_eq!(world.call(&message(&format!("learn-{n}"))).await.status(), 200);
    }
    let before = world.executions().iter().sum::<usize>();
    for _ in 0..5 {
        assert_eq!(world.call(&message("m1")).await.status(), 200);
    }
    assert_eq!(world.executions().iter().sum::<usize>(), before + 1);
    for request in world.replicas.iter().flat_map(|replica| replica.origin.requests()) {
        assert_eq!(request.header("x-pilotfish-idempotency-key"), None);
        assert_eq!(request.header("x-pilotfish-dedup-epoch"), None);
    }
}
