//! The agents: they execute calls, count them, and fail in every way.

mod h2;

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;
use turmoil::net::{TcpListener, TcpStream};

use crate::http::{Conn, Head, Prefixed};
use crate::scenario::AGENT;
use crate::world::World;

/// The host of the agent beside this sidecar.
pub fn host(sidecar: &str) -> String {
    format!("agent-{sidecar}")
}

/// How an agent meets one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Refused,
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
    let Ok((is_h2, stream)) = Prefixed::sniff(stream).await else { return };
    if is_h2 {
        return h2::serve(world, name, stream).await;
    }
    let mut conn = Conn::resume(stream);
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
    let way = way(world);
    arrives(world, name, id);
    let body = conn.body(head).await?;
    if !carry_out(world, name, id, way, (body.len(), head.number("x-sim-body"))).await {
        if way == Way::Unavailable {
            return answer(conn, id, 503, b"not now", usize::MAX).await;
        }
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let text = text(name, id);
    match way {
        Way::CutInHead => answer(conn, id, 200, text.as_bytes(), 20).await,
        Way::CutInBody => answer(conn, id, 200, text.as_bytes(), 100).await,
        Way::Failed => answer(conn, id, 500, b"broken", usize::MAX).await,
        Way::Good => answer(conn, id, 200, text.as_bytes(), usize::MAX).await,
        _ => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

fn arrives(world: &World, name: &'static str, id: u32) {
    world.note(format_args!("agent {name}: call {id} arrives"));
    world.call(id, |fate| fate.arrived.push(name));
}

/// Executes a call that came whole, unless its way is not to; says whether it did. `body`: its length, and what it
/// should be.
async fn carry_out(
    world: &World,
    name: &'static str,
    id: u32,
    way: Way,
    (length, expected): (usize, Option<usize>),
) -> bool {
    if expected != Some(length) {
        world.wrong(format!("agent {name}: call {id} has a body of {length} bytes, not {expected:?}"));
    }
    sleep(Duration::from_millis(fastrand::u64(..=world.scenario.agents.slowest.as_millis() as u64))).await;
    if matches!(way, Way::Refused | Way::ResetBefore | Way::Unavailable) {
        world.note(format_args!("agent {name}: call {id} is not executed: {way:?}"));
        return false;
    }
    world.note(format_args!("agent {name}: call {id} is EXECUTED, then {way:?}"));
    world.call(id, |fate| fate.executed.push(name));
    true
}

/// What a good answer says.
fn text(name: &str, id: u32) -> String {
    format!("call {id} done by {name}\n").repeat(1 + id as usize % 40)
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
        (temper.refuse, Way::Refused),
        (temper.reset_before, Way::ResetBefore),
        (temper.cut_after, Way::CutAfter),
        (temper.cut_in_head, Way::CutInHead),
        (temper.cut_in_body, Way::CutInBody),
        (temper.unavailable, Way::Unavailable),
        (temper.failed, Way::Failed),
    ];
    ways.into_iter().find(|(percent, _)| draws(world, *percent)).map_or(Way::Good, |(_, way)| way)
}
