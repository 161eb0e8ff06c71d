//! AgentSecurityPolicies and RoleBindings that are for this workload.

use pilotfish_config::model::Model;

use super::CompileOptions;
use crate::authz::governance::Governance;

/// What holds for the workload of `options`.
pub(super) fn compile(
    _model: &Model,
    _options: &CompileOptions,
    _warnings: &mut Vec<Box<str>>,
) -> Governance {
    Governance::default()
}
