//! Identities: tokens, joins, renewals, revocations, roots.

use std::net::IpAddr;

use http::StatusCode;
use pilotfish_config::wire::{Join, Joined, Renew};
use pilotfish_identity::SpiffeId;

use super::{Asked, done};
use crate::api::types::{AgentName, NewToken, Pem};
use crate::log;
use crate::server::Control;
use crate::server::answer::{Answer, Denied, json};
use crate::server::body::parse;
use crate::server::status::count;

pub(super) async fn new_token(_control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let _wanted: NewToken = parse(&asked.body)?;
    Err(later())
}
pub(super) async fn revoke(_control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let _agent: AgentName = parse(&asked.body)?;
    Err(later())
}
pub(super) async fn readmit(_control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let _agent: AgentName = parse(&asked.body)?;
    Err(later())
}
pub(super) fn trust(_control: &Control, _asked: &Asked) -> Result<Answer, Denied> {
    Err(later())
}
pub(super) async fn add_root(_control: &Control, _asked: &Asked) -> Result<Answer, Denied> {
    Err(later())
}
pub(super) async fn remove_root(_control: &Control, _asked: &Asked) -> Result<Answer, Denied> {
    Err(later())
}
pub(super) async fn join(_control: &Control, _asked: &Asked) -> Result<Answer, Denied> {
    Err(later())
}
pub(super) async fn renew(_control: &Control, _asked: &Asked) -> Result<Answer, Denied> {
    Err(later())
}
fn later() -> Denied {
    Denied::new(StatusCode::NOT_IMPLEMENTED, "not in this build yet")
}
