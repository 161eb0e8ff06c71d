//! Live calls, and why calls went as they did: through a real control plane, with real sidecars and with those that mean harm.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use pilotfish_config::wire::{
    Account, Answered, MOST_ACCOUNTS, MOST_TAPPED, MOST_TAPS, Tapped, TappedCall, ToControl, ToSidecar,
};
use pilotfish_control::api::live::{Accounts, TapLine, TapNote};
use pilotfish_testkit::{Agent, h1};

use crate::mesh::{binary, pilotfish, sidecar};
use crate::support::serve::Serve;
use crate::support::sidecar::{hello, joined};
use crate::support::{Http, Stream};

const SOON: Duration = Duration::from_secs(20);

/// A tap over the API.
struct Tap {
    _http: Http,
    body: Incoming,
    pending: Vec<u8>,
}

impl Tap {
    async fn open(serve: &Serve, query: &str) -> Tap {
        let mut http = Http::socket(serve).await;
        let answer = http
            .send(Method::GET, &format!("/v1/tap{query}"), Full::new(Bytes::new()).boxed())
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        Tap { _http: http, body: answer.into_body(), pending: Vec::new() }
    }

    async fn line(&mut self) -> TapLine {
        let next = async {
            loop {
                if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.pending.drain(..=end).collect();
                    return serde_json::from_slice(&line).unwrap();
                }
                let frame = self.body.frame().await.expect("the tap ended").unwrap();
                self.pending.extend_from_slice(&frame.into_data().unwrap());
            }
        };
        tokio::time::timeout(SOON, next).await.expect("no line came")
    }

    async fn call(&mut self) -> TappedCall {
        loop {
            if let TapLine::Call(call) = self.line().await {
                return *call;
            }
        }
    }

    async fn note(&mut self, fits: impl Fn(&TapNote) -> bool) -> TapNote {
        loop {
            match self.line().await {
                TapLine::Note { note } if fits(&note) => return note,
                _ => {}
            }
        }
    }
}

/// A sidecar of the test's own, whose stream is open.
async fn fake(serve: &Serve, agent: &str) -> Stream {
    let own = joined(serve, "default", agent).await;
    Stream::welcomed(serve, &own, hello("default", agent)).await
}

/// The ids of those who look, as a sidecar is told.
async fn taps(stream: &mut Stream) -> Vec<u64> {
    match stream.until(|message| matches!(message, ToSidecar::Taps(_))).await {
        ToSidecar::Taps(taps) => taps.taps.iter().map(|tap| tap.id).collect(),
        _ => unreachable!("only taps fit"),
    }
}

fn calls(count: usize, path: &str) -> Vec<TappedCall> {
    vec![TappedCall { path: path.into(), status: 200, ..TappedCall::default() }; count]
}

fn command(control: &Serve, args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilotfish"));
    command.args(args).arg("--data").arg(control.data());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_a_call_are_shown_as_it_ends_and_remembered_for_why() {
    let Some(binary) = binary() else { return };
    let control = Serve::start(&[]);
    let agent = Agent::start("planner").await;
    let planner = sidecar(&binary, &control, "planner").app(agent.addr()).args(&["--capability", "planning"]);
    let (planner, caller) = (planner.launch(), sidecar(&binary, &control, "caller").launch());
    let (_planner, caller) = (planner.ready().await, caller.ready().await);
    let mut tap =
        command(&control, &["tap", "--status", "2xx", "--match", "request.path == '/shown'", "-o", "json"]);
    let lines = tap.stdout.take().map(BufReader::new).unwrap();
    let reading = std::thread::spawn(move || {
        let lines = lines.lines().map(|line| serde_json::from_str::<TappedCall>(&line.unwrap()).unwrap());
        let mut seen: Vec<TappedCall> = Vec::new();
        for call in lines {
            seen.push(call);
            let of = |side: &str| seen.iter().find(|call| call.direction == side);
            if let (Some(out), Some(_)) = (of("outbound"), of("inbound"))
                && seen.iter().any(|call| call.direction == "inbound" && call.trace == out.trace)
            {
                break;
            }
        }
        seen
    });
    // Calls go on until one was seen from both sides; those that do not fit are made too.
    let start = Instant::now();
    while !reading.is_finished() {
        for path in ["/shown", "/other?token=hidden"] {
            let headers = ["agent-capability: planning", "agent-explain: 1"];
            let _ = h1::get(caller.outbound, "planning.capability.mesh", path, &headers).await;
        }
        assert!(start.elapsed() < SOON * 2, "nothing was shown: {:#?}", caller.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seen = reading.join().unwrap();
    assert!(seen.iter().all(|call| call.path == "/shown" && call.status == 200), "{seen:#?}");
    let out = seen.iter().find(|call| call.direction == "outbound").unwrap();
    assert_eq!((out.agent.as_str(), out.peer.as_str()), ("default/caller", "default/planner"));
    let inbound = seen.iter().find(|call| call.direction == "inbound" && call.trace == out.trace).unwrap();
    assert_eq!((inbound.agent.as_str(), inbound.peer.as_str()), ("default/planner", "default/caller"));
    // Ctrl-C ends it well.
    let pid = rustix::process::Pid::from_raw(i32::try_from(tap.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(tap.wait().unwrap().code(), Some(0));
    // The same call, from what both remember.
    let told = pilotfish(&control, &["why", &out.trace]);
    for part in [
        "default/caller -> planning.capability.mesh",
        "default/caller -> default/planner",
        "CANDIDATE",
        "chosen",
        "STAGE",
    ] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
    let told: Accounts =
        serde_json::from_str(&pilotfish(&control, &["why", &out.request_id, "-o", "json"])).unwrap();
    assert!(told.calls.len() >= 2 && told.answered == 2 && told.silent_count == 0, "{told:#?}");
    assert!(told.calls[0].explained.is_some());
    let last = pilotfish(&control, &["why", "--last", "2", "--agent", "planner"]);
    assert!(
        last.contains("at the sidecar of default/planner")
            && !last.contains("at the sidecar of default/caller")
    );
    let none = command(&control, &["why", "nobody-has-this"]).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(none.status.code() == Some(1) && said.contains("none of 2 sidecars remembers"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_killed_looks_no_more() {
    let serve = Serve::start(&[]);
    let mut stream = fake(&serve, "planner").await;
    let mut tap = command(&serve, &["tap", "--agent", "planner,other/*"]);
    assert_eq!(taps(&mut stream).await.len(), 1);
    // One that connects later is told as well; one that is not meant is not.
    let mut later = fake(&serve, "stranger").await;
    tap.kill().unwrap();
    tap.wait().unwrap();
    assert!(taps(&mut stream).await.is_empty());
    // With the end of the control plane it ends too, and says so.
    let mut tap = command(&serve, &["tap"]);
    assert_eq!((taps(&mut stream).await.len(), taps(&mut later).await.len()), (1, 1));
    let mut stderr = BufReader::new(tap.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert!(said.contains("looking at 2 sidecars"), "{said}");
    drop(serve);
    assert_eq!(tap.wait().unwrap().code(), Some(4));
    stderr.read_to_string(&mut said).unwrap();
    assert!(said.contains("ended the tap") && said.contains("0 calls"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_that_connect_later_are_told_and_those_that_are_not_meant_are_not_heard() {
    let serve = Serve::start(&[]);
    let mut tap = Tap::open(&serve, "?agent=default/planner").await;
    tap.note(|note| note.sidecars == 0).await;
    let mut meant = fake(&serve, "planner").await;
    let [id] = taps(&mut meant).await[..] else { panic!("one tap") };
    let mut other = fake(&serve, "other").await;
    tap.note(|note| note.sidecars == 1).await;
    // Another's tap, and none at all.
    for tap in [id, id + 1, u64::MAX] {
        other.say(&ToControl::Tapped(Tapped { tap, calls: calls(1, "/forged"), dropped: 7 })).await;
    }
    let forged = TappedCall {
        agent: "default/admin".into(),
        path: "x".repeat(100_000),
        peer: "a\x1b[2J\n".into(),
        ..TappedCall::default()
    };
    let told = Tapped { tap: id, calls: vec![forged], dropped: 3 };
    // What comes by one connection comes in order: the forged ones would be there by now.
    meant.say(&ToControl::Tapped(told)).await;
    let call = tap.call().await;
    assert_eq!(call.agent, "default/planner", "a sidecar speaks for its own agent only");
    assert!(call.path.len() < 2000 && call.path.starts_with('x'), "{}", call.path.len());
    assert!(!call.peer.contains(char::is_control), "{:?}", call.peer);
    assert_eq!(tap.note(|note| note.limited > 0).await.limited, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_are_bounded_and_counted() {
    let serve = Serve::start(&[]);
    let mut tap = Tap::open(&serve, "").await;
    let mut stream = fake(&serve, "planner").await;
    let [id] = taps(&mut stream).await[..] else { panic!("one tap") };
    let before = serve.memory();
    // Nobody reads the tap meanwhile.
    for _ in 0..12 {
        stream
            .say(&ToControl::Tapped(Tapped { tap: id, calls: calls(1000, &"y".repeat(200)), dropped: 0 }))
            .await;
    }
    let note = tap.note(|note| note.limited + note.lost > 5_000).await;
    assert!(note.sidecars == 1, "{note:?}");
    assert!(serve.memory().saturating_sub(before) < 64 << 20, "{} bytes more", serve.memory() - before);
    // Too much in one message ends the stream.
    stream.say(&ToControl::Tapped(Tapped { tap: id, calls: calls(MOST_TAPPED + 1, "/"), dropped: 0 })).await;
    let refused = stream.until(|message| matches!(message, ToSidecar::Refused(_))).await;
    assert!(matches!(refused, ToSidecar::Refused(why) if why.reason.contains("calls in a message")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_is_told_so() {
    let serve = Serve::start(&[]);
    let mut http = Http::socket(&serve).await;
    for (query, what) in [
        ("tap?status=6xx", "neither a status"),
        ("tap?match=response.code%20%3E", "column"),
        ("tap?match=response.kode%20%3D%3D%201", "response.code"),
        ("tap?match=request.headers%5B'x'%5D%20%3D%3D%20'y'", "does not know headers"),
        ("tap?rate=0", "1 to 1000"),
        ("tap?rate=9999", "1 to 1000"),
        ("tap?agent=a/b/c", "is no agent"),
        ("tap?agents=a", "unknown parameter"),
        ("why", "one of request"),
        ("why?request=a&last=1", "one of request"),
        ("why?trace=xyz", "32 hexadecimal digits"),
        ("why?last=x", "no whole number"),
    ] {
        let why = http.get(&format!("/v1/{query}")).await.refused(400);
        assert!(why.contains(what), "{query}: {why}");
    }
    let mut stranger = Http::tls(&serve, None).await;
    stranger.get("/v1/tap").await.refused(401);
    stranger.get("/v1/why?last=1").await.refused(401);
    let mut open = Vec::new();
    for _ in 0..MOST_TAPS {
        open.push(Tap::open(&serve, "").await);
    }
    assert!(http.get("/v1/tap").await.refused(429).contains("16 taps are open"));
    drop(open);
    let until = Instant::now() + SOON;
    loop {
        let mut http = Http::socket(&serve).await;
        let answer = http.send(Method::GET, "/v1/tap", Full::new(Bytes::new()).boxed()).await.unwrap();
        if answer.status() == 200 {
            break;
        }
        assert!(Instant::now() < until, "the places did not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_count_once_under_the_own_name_and_silence_is_told() {
    let serve = Serve::start(&[]);
    let (mut good, mut bad, _silent) =
        (fake(&serve, "good").await, fake(&serve, "bad").await, fake(&serve, "silent").await);
    let asking = tokio::spawn({
        let mut http = Http::socket(&serve).await;
        async move { http.get("/v1/why?request=one").await.ok::<Accounts>() }
    });
    let asked = |message: ToSidecar| match message {
        ToSidecar::Why(why) => (why.ask, why.request),
        _ => unreachable!("only a question fits"),
    };
    let is_why = |message: &ToSidecar| matches!(message, ToSidecar::Why(_));
    let (ask, request) = asked(good.until(is_why).await);
    assert_eq!(request.as_deref(), Some("one"));
    let account = |agent: &str, at: u64| Account {
        agent: agent.into(),
        time_ns: at,
        host: "h".repeat(100_000),
        policies: vec!["p".into(); 10_000],
        ..Account::default()
    };
    bad.until(is_why).await;
    let say = |ask, calls| ToControl::Answered(Answered { ask, calls, left_off: 1 });
    bad.say(&say(ask + 1, vec![account("default/bad", 3)])).await;
    bad.say(&say(ask, vec![account("default/good", 2)])).await;
    bad.say(&say(ask, vec![account("default/good", 4)])).await;
    good.say(&say(ask, vec![account("default/good", 1)])).await;
    let told = asking.await.unwrap();
    let names: Vec<&str> = told.calls.iter().map(|call| call.agent.as_str()).collect();
    assert_eq!(
        names,
        ["default/good", "default/bad"],
        "in order of time, each under its own name, each once"
    );
    assert!(told.calls.iter().all(|call| call.host.len() < 2000 && call.policies.len() < 100));
    assert_eq!((told.answered, told.silent_count, told.left_off), (2, 1, 2));
    assert_eq!(told.silent, ["default/silent"]);
    bad.say(&say(ask, vec![Account::default(); MOST_ACCOUNTS + 1])).await;
    bad.until(|message| matches!(message, ToSidecar::Refused(_))).await;
}
