//! RequestAuthentications that are for this workload.

use pilotfish_config::model::Model;

use super::CompileOptions;
use crate::tokens::TokenRules;

/// What holds for the workload of `options`.
pub(super) fn compile(
    _model: &Model,
    _options: &CompileOptions,
    _warnings: &mut Vec<Box<str>>,
) -> TokenRules {
    TokenRules::default()
}
