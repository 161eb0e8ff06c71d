//! AgentSecurityPolicy: our own kind. Its keys are in snake_case.

use super::{Bool, List, One, Quantity, Text, object, words};

object! {
    /// How agents are governed.
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
        /// Callers have to say who they are.
        required = "required": Bool<'n>;
        /// How they may: `certificate`, `oauth2`.
        methods = "methods": List<Text<'n>>;
        /// How long a token is valid: seconds, or a duration.
        token_lifetime = "token_lifetime": Quantity<'n>;
    }

    /// What callers may do.
    struct AuthorizationSpec<'n> "Authorization" {
        /// `rbac`.
        model = "model": Text<'n>;
        /// Who may do what.
        roles = "roles": List<RoleSpec<'n>>;
    }

    /// Who may do what.
    struct RoleSpec<'n> "Role" {
        /// The agent that has the role.
        name = "name": Text<'n>, required;
        /// `area:verb`, `*` allowed.
        permissions = "permissions": List<Text<'n>>;
        /// Paths, `*` allowed.
        resources = "resources": List<Text<'n>>;
    }

    /// How agents talk.
    struct CommunicationSpec<'n> "Communication" {
        /// Whether they encrypt.
        encryption = "encryption": One<'n, EncryptionWord>;
        /// Protocols that are allowed.
        protocols = "protocols": List<Text<'n>>;
    }

    /// What data agents see.
    struct DataAccessSpec<'n> "DataAccess" {
        /// Data has to be classified.
        classification_required = "classification_required": Bool<'n>;
        /// Classes, from the least to the most secret.
        access_levels = "access_levels": List<Text<'n>>;
    }

    /// What is recorded.
    struct MonitoringSpec<'n> "Monitoring" {
        /// Log every action.
        audit_all_actions = "audit_all_actions": Bool<'n>;
        /// Log data access.
        log_data_access = "log_data_access": Bool<'n>;
        /// Raise an alert on anomalies.
        alert_on_anomalies = "alert_on_anomalies": Bool<'n>;
    }

    /// What has to be complied with.
    struct ComplianceSpec<'n> "Compliance" {
        /// Frameworks.
        frameworks = "frameworks": List<Text<'n>>;
        /// How long records are kept, `90d`.
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
        /// Never.
        Disabled = "disabled",
    }
}
