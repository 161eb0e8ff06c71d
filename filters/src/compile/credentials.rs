//! OutboundCredentials that are for this sidecar.

use pilotfish_config::model::Model;

use super::CompileOptions;
use crate::credentials::Credentials;

/// What holds for the sidecar of `options`.
pub(super) fn compile(
    _model: &Model,
    _options: &CompileOptions,
    _warnings: &mut Vec<Box<str>>,
) -> Credentials {
    Credentials::default()
}
