//! What calls of models, tools and agents are, in OpenTelemetry's words: gen_ai, mcp, a2a. What is known of the request says which
//! it is; what a model's answer says of itself is heard while it goes by. It becomes metrics, and attributes of spans that are kept.

pub mod gen_ai;
mod listen;
pub mod rpc;
mod usage;

pub use listen::Listening;

use std::time::Duration;

use pilotfish_filters::call::{Call, Protocol};

use super::call::CallRecord;
use super::metrics::agentic::Told;
use crate::clock::Clock;
use crate::http::{RequestHead, ResponseHead};

/// A call that is more than HTTP.
#[derive(Debug)]
pub struct Agentic {
    is: Is,
    listening: Option<Listening>,
}

#[derive(Debug)]
enum Is {
    Model(gen_ai::Asked),
    Mcp(rpc::Mcp),
    A2a(rpc::A2a),
}

/// What a call is; `None`: nothing more than HTTP.
pub fn asked(head: &RequestHead, call: &Call) -> Option<Box<Agentic>> {
    let is = match call.protocol {
        Protocol::Mcp => Is::Mcp(rpc::Mcp::of(head, call)?),
        Protocol::A2a => Is::A2a(rpc::A2a::of(head, call)?),
        Protocol::Http | Protocol::OpenAi => Is::Model(gen_ai::Asked::of(head, call)?),
        Protocol::Grpc | Protocol::WebSocket | Protocol::JsonRpc => return None,
    };
    Some(Box::new(Agentic { is, listening: None }))
}

impl Agentic {
    /// The head of its answer is there: who wants to hear the body, if it is a model's.
    pub fn answered(&mut self, head: &ResponseHead, clock: Clock) -> Option<&mut Listening> {
        match self.is {
            Is::Model(_) => Some(self.listening.insert(Listening::to(head, clock))),
            Is::Mcp(_) | Is::A2a(_) => None,
        }
    }

    /// The call has ended: attributes for its spans, when they are kept, and what metrics tell of it.
    pub fn finish(&self, record: &mut CallRecord) -> Told<'_> {
        let took = Duration::from_micros(record.stages.ended);
        match &self.is {
            Is::Model(asked) => asked.finish(self.listening.as_ref(), record, took),
            Is::Mcp(mcp) => mcp.finish(record, took),
            Is::A2a(a2a) => a2a.finish(record),
        }
    }
}
