//! OutboundCredential.

use crate::model::{Meta, OutboundCredential};
use crate::raw::OutboundCredentialSpec;

use super::check::Cx;

/// Reads one.
pub(super) fn outbound_credential(
    _cx: &mut Cx<'_>,
    meta: Meta,
    _spec: &OutboundCredentialSpec<'_>,
) -> Option<OutboundCredential> {
    Some(OutboundCredential { meta })
}
