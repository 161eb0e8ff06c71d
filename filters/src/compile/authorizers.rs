//! AuthorizationProviders that this sidecar may have to ask.

use pilotfish_config::model::Model;

use super::CompileOptions;
use crate::authorizer::Authorizers;

/// Those of its namespace and of the root namespaces.
pub(super) fn compile(
    _model: &Model,
    _options: &CompileOptions,
    _warnings: &mut Vec<Box<str>>,
) -> Authorizers {
    Authorizers::default()
}
