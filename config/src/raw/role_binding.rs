//! RoleBinding: our own kind, in Istio's style of keys.

use super::{List, Text, object};

object! {
    /// Who has a role of an AgentSecurityPolicy, besides the agent of the role's own name.
    struct RoleBindingSpec<'n> "RoleBinding" {
        /// The role's name.
        role = "role": Text<'n>, required;
        /// The AgentSecurityPolicy that has it (each of the namespace with a role of this name by default).
        policy = "policy": Text<'n>;
        /// Who has it; any one.
        subjects = "subjects": List<SubjectSpec<'n>>, required;
    }

    /// Somebody who may have a role; one of the three.
    struct SubjectSpec<'n> "RoleSubject" {
        /// An agent by its name.
        agent = "agent": Text<'n>;
        /// The agent's namespace (the document's by default).
        namespace = "namespace": Text<'n>;
        /// An identity from a certificate: `TRUST-DOMAIN/ns/NAMESPACE/agent/NAME`, with `*` at one end.
        principal = "principal": Text<'n>;
        /// An identity from a token: `ISSUER/SUBJECT`, with `*` at one end.
        request_principal = "requestPrincipal": Text<'n>;
    }
}
