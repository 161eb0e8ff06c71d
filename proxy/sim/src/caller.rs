//! The callers: each lane sends its calls one after the other, and learns how each ends.

mod h2;

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use turmoil::net::TcpStream;

use crate::http::Conn;
use crate::scenario::{Call, HOST, OUTBOUND};
use crate::world::{End, World};

/// A call that has not ended after this time is lost: longer than all timeouts of a sidecar that could add up here.
const LOST: Duration = Duration::from_secs(90);

/// Sends all calls.
///
/// # Errors
/// A lane panicked.
pub async fn run(world: Rc<World>) -> turmoil::Result {
    let lanes: Vec<_> = (0..world.scenario.lanes.len())
        .map(|lane| tokio::task::spawn_local(run_lane(world.clone(), lane)))
        .collect();
    for lane in lanes {
        lane.await?;
    }
    Ok(())
}

async fn run_lane(world: Rc<World>, lane: usize) {
    let Some(lane) = world.scenario.lanes.get(lane) else { return };
    let (mut kept, mut shared) = (None, h2::Shared::default());
    let mut streams = Vec::new();
    for call in &lane.calls {
        sleep(call.pause).await;
        if call.fresh {
            (kept, shared) = (None, h2::Shared::default());
        }
        if lane.h2 {
            // One after the other is begun, and many are under way on one connection.
            let (world, call, shared) = (world.clone(), call.clone(), shared.clone());
            streams.push(tokio::task::spawn_local(async move {
                watch(&world, &call, h2::ask(&world, &call, &shared)).await;
            }));
        } else if !watch(&world, call, ask(&world, call, &mut kept)).await {
            kept = None;
        }
    }
    for stream in streams {
        if stream.await.is_err() {
            world.wrong("a caller panicked".to_owned());
        }
    }
}

/// Notes how a call goes; says whether it was answered.
async fn watch(world: &World, call: &Call, asked: impl Future<Output = io::Result<End>>) -> bool {
    let now = turmoil::sim_elapsed().unwrap_or_default();
    world.note(format_args!("call {} is sent: {}", call.id, describe(call)));
    world.call(call.id, |fate| fate.sent = Some(now));
    let end = match timeout(call.patience.unwrap_or(LOST), asked).await {
        Ok(Ok(end)) => end,
        Ok(Err(_)) => End::Broken,
        Err(_) if call.patience.is_some() => End::Left,
        Err(_) => {
            world.wrong(format!("call {} got no answer and no end within {LOST:?}", call.id));
            End::Left
        }
    };
    let answered = matches!(end, End::Answered(..));
    let now = turmoil::sim_elapsed().unwrap_or_default();
    world.note(format_args!("call {} ends: {end:?}", call.id));
    world.call(call.id, |fate| fate.ended = Some((now, end)));
    answered
}

/// A call in a few words.
pub fn describe(call: &Call) -> String {
    let key = if call.keyed { " with a key" } else { "" };
    let how = if call.chunked { " chunked" } else { "" };
    format!("{}{key}, {} bytes{how}", call.method, call.body)
}

async fn ask(world: &World, call: &Call, kept: &mut Option<Conn>) -> io::Result<End> {
    let mut conn = match kept.take() {
        Some(conn) => conn,
        None => Conn::new(TcpStream::connect(("a", OUTBOUND)).await?),
    };
    send(call, &mut conn).await?;
    let head = conn.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.status().ok_or(io::ErrorKind::InvalidData)?;
    let body = conn.body(&head).await?;
    let reason = head.field("pilotfish-reason").map(str::to_owned);
    judge(world, call, status, &reason, (head.number("x-sim-call"), &body));
    if head.field("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")) {
        *kept = Some(conn);
    }
    Ok(End::Answered(status, reason))
}

/// Whether an answer is this call's own: the call that it names, and its body.
fn judge(world: &World, call: &Call, status: u16, reason: &Option<String>, (of, body): (Option<u32>, &[u8])) {
    if reason.is_none() && of != Some(call.id) {
        world.wrong(format!("call {} got another call's answer: {of:?}", call.id));
    }
    if status == 200 && !body.starts_with(format!("call {} done", call.id).as_bytes()) {
        world.wrong(format!("call {} got another body than its own", call.id));
    }
}

async fn send(call: &Call, conn: &mut Conn) -> io::Result<()> {
    let Call { id, method, body, .. } = call;
    let mut head =
        format!("{method} /do HTTP/1.1\r\nhost: {HOST}\r\nx-sim-call: {id}\r\nx-sim-body: {body}\r\n");
    if call.keyed {
        head.push_str(&format!("idempotency-key: key-{id}\r\n"));
    }
    let bytes = vec![b'.'; *body];
    if !call.chunked {
        if *body > 0 || *method != "GET" {
            head.push_str(&format!("content-length: {body}\r\n"));
        }
        head.push_str("\r\n");
        return conn.write(&[head.as_bytes(), &bytes].concat()).await;
    }
    head.push_str("transfer-encoding: chunked\r\n\r\n");
    conn.write(head.as_bytes()).await?;
    for piece in bytes.chunks(1 + body / 3) {
        sleep(Duration::from_millis(fastrand::u64(..40))).await;
        conn.write(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
        conn.write(&[piece, b"\r\n"].concat()).await?;
    }
    conn.write(b"0\r\n\r\n").await
}
