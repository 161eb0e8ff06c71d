//! AgentSecurityPolicy: our own kind. Its keys are in snake_case.

use super::{Bool, List, One, Quantity, Text, TextMap, object, words};

object! {
    /// How agents are governed: what holds for calls to every agent of its namespace, in a root namespace of the mesh.
    struct AgentSecurityPolicySpec<'n> "AgentSecurityPolicy" {
        /// Who callers are.
        authentication = "authentication": AuthenticationSpec<'n>;
        /// What they may do.
        authorization = "authorization": AuthorizationSpec<'n>;
        /// How they talk.
        communication = "communication": CommunicationSpec<'n>;
        /// What data they see.
        data_access = "data_access": DataAccessSpec<'n>;
        /// What is recorded.
        monitoring = "monitoring": MonitoringSpec<'n>;
        /// What has to be complied with.
        compliance = "compliance": ComplianceSpec<'n>;
    }

    /// Who callers are.
    struct AuthenticationSpec<'n> "Authentication" {
        /// Callers have to say who they are, by one of the methods.
        required = "required": Bool<'n>;
        /// How they may: `certificate` (of the mesh), `oauth2` (a token that a RequestAuthentication takes). Both by default; any one is
        /// enough.
        methods = "methods": List<Text<'n>>;
        /// How long a token may be valid in all: seconds, or a duration. One that is valid for longer, or is older, does not count.
        token_lifetime = "token_lifetime": Quantity<'n>;
        /// A caller of the mesh has to say for whom it calls (our addition): a call whose sidecar sends no chain of who asked whom is
        /// refused, instead of being taken for the caller's own.
        delegation_required = "delegation_required": Bool<'n>;
    }

    /// What callers may do.
    struct AuthorizationSpec<'n> "Authorization" {
        /// `rbac`: a call needs a permission on a resource (annotations `pilotfish.dev/permission` and `pilotfish.dev/resource`), and a
        /// role gives it.
        model = "model": Text<'n>;
        /// Who may do what.
        roles = "roles": List<RoleSpec<'n>>;
    }

    /// Who may do what.
    struct RoleSpec<'n> "Role" {
        /// The agent that has the role: its name, or `namespace/name`; RoleBindings give it to others.
        name = "name": Text<'n>, required;
        /// `domain:verb`; each part may be `*`.
        permissions = "permissions": List<Text<'n>>;
        /// What they are for, without a first slash; `*` stands for any characters, `/` included.
        resources = "resources": List<Text<'n>>;
        /// The highest of `access_levels` that it may see (our addition). By default the lowest, or the highest when the role is `*:*`
        /// on `*`.
        clearance = "clearance": Text<'n>;
    }

    /// How agents talk.
    struct CommunicationSpec<'n> "Communication" {
        /// Whether they encrypt. `required`: calls in plaintext are refused, from others and to others. So they are when only `protocols`
        /// is written.
        encryption = "encryption": One<'n, EncryptionWord>;
        /// Protocols that are allowed: `tls-1.3`, `tls-1.2` (only to hosts outside of the mesh), `mtls` (no caller without a certificate).
        protocols = "protocols": List<Text<'n>>;
    }

    /// What data agents see.
    struct DataAccessSpec<'n> "DataAccess" {
        /// What has no class is refused.
        classification_required = "classification_required": Bool<'n>;
        /// Classes, from the least to the most secret.
        access_levels = "access_levels": List<Text<'n>>;
        /// Classes of resources (our addition): a resource, with `*` for any characters, to one of the levels. The highest that matches
        /// holds.
        classifications = "classifications": TextMap<'n>;
    }

    /// What is recorded.
    struct MonitoringSpec<'n> "Monitoring" {
        /// Every decision is recorded, not only refusals.
        audit_all_actions = "audit_all_actions": Bool<'n>;
        /// What touches classified data is recorded.
        log_data_access = "log_data_access": Bool<'n>;
        /// Raise an alert on anomalies.
        alert_on_anomalies = "alert_on_anomalies": Bool<'n>;
        /// A call whose record cannot be kept is refused, instead of leaving a gap that is marked (our addition).
        audit_required = "audit_required": Bool<'n>;
    }

    /// What has to be complied with.
    struct ComplianceSpec<'n> "Compliance" {
        /// Frameworks, for the record; `pilotfish policy report` tells what of them is enforced.
        frameworks = "frameworks": List<Text<'n>>;
        /// How long records are kept, `90d`; then they are erased.
        retention_policy = "retention_policy": Text<'n>;
    }
}

words! {
    /// Whether agents encrypt.
    enum EncryptionWord {
        /// Always.
        Required = "required",
        /// If the other side can.
        Preferred = "preferred",
        /// It does not matter.
        Disabled = "disabled",
    }
}
