//! Who may call this workload: AuthorizationPolicies and AgentSecurityPolicies that are for it.

use pilotfish_config::model::Model;

use super::CompileOptions;
use crate::authz::Authz;

/// What holds for the workload of `options`. A policy that cannot be compiled denies its workload; `warnings` say so.
pub(super) fn compile(model: &Model, options: &CompileOptions, warnings: &mut Vec<Box<str>>) -> Authz {
    let governance = super::governance::compile(model, options, warnings);
    Authz { governance, ..Authz::default() }
}
