//! TTLs, failures and waiting workers by a scripted look-up and paused time; the system's look-up against a small DNS
//! server on loopback.

use super::*;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::net::UdpSocket;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// Answers from a list, then fails for ever; notes when it was asked.
#[derive(Clone)]
struct Script(Arc<Mutex<Scripted>>);

struct Scripted {
    answers: VecDeque<Result<Answer, String>>,
    asked: Vec<Instant>,
}

impl Script {
    fn new(answers: &[(&[u8], u64)]) -> Self {
        let answer = |(last, ttl): &(&[u8], u64)| match last {
            [] => Err("refused".to_owned()),
            last => Ok(Answer {
                addresses: last.iter().map(|l| ip(*l)).collect(),
                ttl: Duration::from_secs(*ttl),
            }),
        };
        let answers = answers.iter().map(answer).collect();
        Script(Arc::new(Mutex::new(Scripted { answers, asked: Vec::new() })))
    }

    fn asked(&self) -> Vec<Instant> {
        self.0.lock().unwrap().asked.clone()
    }
}

impl Lookup for Script {
    async fn lookup(&self, _name: &str) -> Result<Answer, String> {
        let mut script = self.0.lock().unwrap();
        script.asked.push(Instant::now());
        script.answers.pop_front().unwrap_or_else(|| Err("the script is over".into()))
    }
}

struct Running {
    dns: Arc<Dns>,
    script: Script,
    changes: Arc<AtomicUsize>,
    start: Instant,
}

impl Running {
    fn new(answers: &[(&[u8], u64)]) -> Self {
        let (dns, questions) = Dns::new();
        let (dns, script, changes) = (Arc::new(dns), Script::new(answers), Arc::new(AtomicUsize::new(0)));
        let count = changes.clone();
        tokio::spawn(run(script.clone(), dns.clone(), questions, move || {
            count.fetch_add(1, Relaxed);
        }));
        Running { dns, script, changes, start: Instant::now() }
    }

    async fn follow(&self, names: &[&str]) {
        let (tried, wait) = std::sync::mpsc::channel();
        let names = names.iter().map(|name| (*name).into()).collect();
        self.dns.questions.send(Question::Follow(names, tried)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        wait.try_recv().expect("every name was tried");
    }

    async fn until(&self, seconds: u64) {
        tokio::time::sleep_until(self.start + Duration::from_secs(seconds)).await;
    }

    fn now(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.dns.answers().get(name).cloned()
    }

    fn asked_at(&self) -> Vec<u64> {
        self.script.asked().iter().map(|at| (*at - self.start).as_secs()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_again_when_its_ttl_is_over() {
    let running = Running::new(&[(&[1], 10), (&[1], 5), (&[1, 2], 60)]);
    running.follow(&["svc"]).await;
    assert_eq!(running.now("svc"), Some(vec![ip(1)]));
    running.until(20).await;
    assert_eq!(running.now("svc"), Some(vec![ip(1), ip(2)]));
    assert_eq!(running.asked_at(), [0, 10, 15]);
    assert_eq!(running.changes.load(Relaxed), 2, "the same addresses again are no change");
}

#[tokio::test(start_paused = true)]
async fn a_failed_look_up_keeps_the_last_answer_and_is_tried_again() {
    let running = Running::new(&[(&[1], 10), (&[], 0), (&[], 0), (&[], 0), (&[2], 60)]);
    running.follow(&["svc"]).await;
    running.until(16).await;
    assert_eq!(running.now("svc"), Some(vec![ip(1)]));
    running.until(18).await;
    assert_eq!(running.now("svc"), Some(vec![ip(2)]));
    assert_eq!(running.asked_at(), [0, 10, 11, 13, 17]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_never_resolved_is_tried_once_and_has_no_answer() {
    let running = Running::new(&[(&[], 0)]);
    running.follow(&["nowhere"]).await;
    assert_eq!(running.now("nowhere"), None);
}

#[tokio::test(start_paused = true)]
async fn another_order_of_addresses_is_no_change() {
    let running = Running::new(&[(&[1, 2], 5), (&[2, 1], 60)]);
    running.follow(&["svc"]).await;
    running.until(10).await;
    assert_eq!((running.asked_at().len(), running.changes.load(Relaxed)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_ttl_of_zero_is_no_flood() {
    let running = Running::new(&[(&[1], 0), (&[1], 0), (&[1], 0), (&[1], 0)]);
    running.follow(&["svc"]).await;
    running.until(3).await;
    assert!(running.asked_at().len() <= 4, "{:?}", running.asked_at());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_followed_is_forgotten() {
    let running = Running::new(&[(&[1], 5)]);
    running.follow(&["old"]).await;
    running.follow(&[]).await;
    assert_eq!(running.now("old"), None);
    running.until(60).await;
    assert_eq!(running.asked_at(), [0]);
}

#[tokio::test(start_paused = true)]
async fn workers_share_a_look_up_and_its_answer_lasts_for_its_ttl() {
    let running = Running::new(&[(&[7], 10), (&[8], 10)]);
    let (first, second) = tokio::join!(running.dns.lookup("Web"), running.dns.lookup("web"));
    assert_eq!((first.unwrap().to_vec(), second.unwrap().to_vec()), (vec![ip(7)], vec![ip(7)]));
    running.until(9).await;
    assert_eq!(running.dns.lookup("web").await.unwrap().to_vec(), [ip(7)]);
    running.until(11).await;
    assert_eq!(running.dns.lookup("web").await.unwrap().to_vec(), [ip(8)]);
    assert_eq!(running.changes.load(Relaxed), 0, "the configuration does not use it");
    assert_eq!(running.dns.lookup("gone").await, Err(Unresolved("the script is over".into())));
}

#[tokio::test(start_paused = true)]
async fn addresses_are_not_looked_up() {
    let running = Running::new(&[]);
    assert_eq!(running.dns.lookup("10.0.0.9").await.unwrap().to_vec(), [ip(9)]);
    assert_eq!(running.dns.lookup("[::1]").await.unwrap().to_vec(), ["::1".parse::<IpAddr>().unwrap()]);
    assert!(running.asked_at().is_empty());
}

/// A DNS server that knows one A record, `agent.test` with TTL 7, and nothing else (RFC 1035 section 4).
async fn serve_dns(socket: UdpSocket) {
    let mut packet = [0; 512];
    while let Ok((len, from)) = socket.recv_from(&mut packet).await {
        let question_end = 12 + packet[12..len].iter().position(|b| *b == 0).unwrap() + 5;
        let is_a = packet[question_end - 3] == 1;
        let known = packet[12..].to_ascii_lowercase().starts_with(b"\x05agent\x04test\0");
        let mut reply = packet[..question_end].to_vec();
        let code = if known { 0 } else { 3 };
        let answers = u8::from(known && is_a);
        reply[2..12].copy_from_slice(&[0x84, code, 0, 1, 0, answers, 0, 0, 0, 0]);
        if answers == 1 {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 7, 0, 4, 10, 9, 8, 7]);
        }
        socket.send_to(&reply, from).await.unwrap();
    }
}

#[tokio::test]
async fn the_system_look_up_asks_the_given_server_and_takes_its_ttl() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server: SocketAddr = socket.local_addr().unwrap();
    tokio::spawn(serve_dns(socket));
    let lookup = SystemLookup::new(Some(server));
    let answer = lookup.lookup("agent.test").await.unwrap();
    assert_eq!(answer.addresses, [IpAddr::from([10, 9, 8, 7])]);
    assert!((6..=7).contains(&answer.ttl.as_secs()), "{:?}", answer.ttl);
    lookup.lookup("other.test").await.unwrap_err();
}

#[tokio::test]
async fn localhost_resolves_without_a_server() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let answer = SystemLookup::new(Some(nobody)).lookup("localhost").await.unwrap();
    assert_eq!(answer.addresses, [IpAddr::from([127, 0, 0, 1])]);
}
