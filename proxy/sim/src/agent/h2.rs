//! The same agents over HTTP/2: streams that are refused, reset or left half answered, and connections that go away.

use std::rc::Rc;

use ::h2::server::{SendResponse, handshake};
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::{Request, Response};

use super::{Way, arrives, carry_out, draws, text, way};
use crate::http::Prefixed;
use crate::world::World;

/// Serves one connection to its end.
pub async fn serve(world: Rc<World>, name: &'static str, stream: Prefixed) {
    let Ok(mut conn) = handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = conn.accept().await {
        if draws(&world, world.scenario.agents.refuse) {
            world.note(format_args!("agent {name} says GOAWAY"));
            conn.graceful_shutdown();
        }
        if draws(&world, world.scenario.agents.reset_before / 4) {
            // Streams under way are lost with it, executed or not.
            world.note(format_args!("agent {name} drops a connection"));
            return;
        }
        tokio::task::spawn_local(one(world.clone(), name, request, respond));
    }
}

/// Meets one call.
async fn one(
    world: Rc<World>,
    name: &'static str,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let number = |field: &str| request.headers().get(field)?.to_str().ok()?.parse::<usize>().ok();
    let Some(id) = number("x-sim-call").and_then(|id| u32::try_from(id).ok()) else {
        return world.wrong(format!("agent {name} got a request that nobody sent: {}", request.uri()));
    };
    let (way, expected) = (way(&world), number("x-sim-body"));
    if way == Way::Refused {
        world.note(format_args!("agent {name}: call {id} is refused"));
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    arrives(&world, name, id);
    let Some(length) = read(request.into_body()).await else { return };
    let executed = carry_out(&world, name, id, way, (length, expected)).await;
    let status = match way {
        Way::Unavailable => 503,
        Way::Failed => 500,
        _ => 200,
    };
    let body = if status == 200 { text(name, id) } else { "broken".to_owned() };
    let head = Response::builder().status(status).header("x-sim-call", id).body(());
    match (way, head) {
        (Way::Good | Way::Failed | Way::Unavailable | Way::CutInBody, Ok(head)) => {
            let Ok(mut stream) = respond.send_response(head, false) else { return };
            let cut = way == Way::CutInBody;
            let _ = stream.send_data(body.into(), !cut);
            if cut {
                stream.send_reset(Reason::INTERNAL_ERROR);
            }
        }
        _ if executed => respond.send_reset(Reason::INTERNAL_ERROR),
        _ => respond.send_reset(Reason::CANCEL),
    }
}

/// The length of a whole body.
async fn read(mut body: RecvStream) -> Option<usize> {
    let mut length = 0;
    while let Some(data) = body.data().await {
        let n = data.ok()?.len();
        length += n;
        body.flow_control().release_capacity(n).ok()?;
    }
    Some(length)
}
