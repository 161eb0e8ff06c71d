//! The agents: they execute calls, count them, and fail in every way.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;
use turmoil::net::{TcpListener, TcpStream};

use crate::http::{Conn, Head};
use crate::scenario::AGENT;
use crate::world::World;

/// The host of the agent beside this sidecar.
pub fn host(sidecar: &str) -> String {
    format!("agent-{sidecar}")
}

/// How an agent meets one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ResetBefore,
    CutAfter,
    CutInHead,
    CutInBody,
    Unavailable,
    Failed,
    Good,
}

/// Serves until the run ends.
///
/// # Errors
/// Its port is taken.
pub async fn run(world: Rc<World>, name: &'static str) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", AGENT)).await?;
    world.note(format_args!("agent {name} listens"));
    loop {
        let (stream, _) = listener.accept().await?;
        if draws(&world, world.scenario.agents.refuse) {
            world.note(format_args!("agent {name} closes a new connection"));
            continue;
        }
        tokio::task::spawn_local(serve(world.clone(), name, stream));
    }
}

fn draws(world: &World, percent: u32) -> bool {
    !world.healed.get() && fastrand::u32(..100) < percent
}

async fn serve(world: Rc<World>, name: &'static str, stream: TcpStream) {
    let mut conn = Conn::new(stream);
    // A connection that ends within a call needs no word here: the caller notices.
    while let Ok(Some(head)) = conn.head().await {
        if one(&world, name, &mut conn, &head).await.is_err() {
            return;
        }
    }
}

/// Meets one call; an error closes the connection.
async fn one(world: &World, name: &'static str, conn: &mut Conn, head: &Head) -> io::Result<()> {
    let Some(id) = head.number::<u32>("x-sim-call") else {
        world.wrong(format!("agent {name} got a request that nobody sent: {}", head.first));
        return Err(io::ErrorKind::InvalidData.into());
    };
    world.note(format_args!("agent {name}: call {id} arrives"));
    world.call(id, |fate| fate.arrived.push(name));
    let body = conn.body(head).await?;
    if head.number("x-sim-body") != Some(body.len()) {
        world.wrong(format!("agent {name}: call {id} has a body of {} bytes", body.len()));
    }
    let way = way(world);
    sleep(Duration::from_millis(fastrand::u64(..=world.scenario.agents.slowest.as_millis() as u64))).await;
    if way == Way::ResetBefore {
        world.note(format_args!("agent {name}: call {id} is dropped"));
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    if way == Way::Unavailable {
        world.note(format_args!("agent {name}: call {id} is declined"));
        return answer(conn, id, 503, b"not now", usize::MAX).await;
    }
    world.note(format_args!("agent {name}: call {id} is EXECUTED, then {way:?}"));
    world.call(id, |fate| fate.executed.push(name));
    let text = format!("call {id} done by {name}\n").repeat(1 + id as usize % 40);
    match way {
        Way::CutAfter => Err(io::ErrorKind::ConnectionReset.into()),
        Way::CutInHead => answer(conn, id, 200, text.as_bytes(), 20).await,
        Way::CutInBody => answer(conn, id, 200, text.as_bytes(), 100).await,
        Way::Failed => answer(conn, id, 500, b"broken", usize::MAX).await,
        _ => answer(conn, id, 200, text.as_bytes(), usize::MAX).await,
    }
}

/// Answers with at most `most` bytes; fewer than all are an error.
async fn answer(conn: &mut Conn, id: u32, status: u16, body: &[u8], most: usize) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} X\r\nx-sim-call: {id}\r\ncontent-length: {}\r\n\r\n", body.len());
    let whole = [head.as_bytes(), body].concat();
    conn.write(whole.get(..most).unwrap_or(&whole)).await?;
    if most < whole.len() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
}

fn way(world: &World) -> Way {
    let temper = &world.scenario.agents;
    let ways = [
        (temper.reset_before, Way::ResetBefore),
        (temper.cut_after, Way::CutAfter),
        (temper.cut_in_head, Way::CutInHead),
        (temper.cut_in_body, Way::CutInBody),
        (temper.unavailable, Way::Unavailable),
        (temper.failed, Way::Failed),
    ];
    ways.into_iter().find(|(percent, _)| draws(world, *percent)).map_or(Way::Good, |(_, way)| way)
}
