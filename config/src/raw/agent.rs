//! AgentCluster and AgentSecurityPolicy: our own kinds. Their keys are in snake_case.

use super::{Bool, Int, List, Map, One, Raw, Reader, Shape, Text, TextMap, object, words};
use crate::yaml::{Node, Type};

object! {
    /// Agents and what they are able to do.
    struct AgentClusterSpec<'n> "AgentCluster" {
        /// All replicas together.
        replicas = "replicas": Int<'n>, later;
        /// Who places and watches the agents.
        orchestrator = "orchestrator": OrchestratorSpec<'n>, later;
        /// The agents.
        agents = "agents": List<AgentSpec<'n>>;
        /// How many run where.
        regions = "regions": List<RegionSpec<'n>>, later;
        /// How their number follows load.
        auto_scaling = "auto_scaling": AutoScalingSpec<'n>, later;
        /// Resources by agent name.
        resource_management = "resource_management": Map<'n, ResourcesSpec<'n>>, later;
    }

    /// Who places and watches agents.
    struct OrchestratorSpec<'n> "Orchestrator" {
        /// `hierarchical`.
        kind = "type": Text<'n>;
        /// From the top down.
        levels = "levels": List<LevelSpec<'n>>;
    }

    /// A level of an orchestrator.
    struct LevelSpec<'n> "OrchestratorLevel" {
        /// Name.
        name = "name": Text<'n>, required;
        /// What it spans.
        scope = "scope": Text<'n>;
        /// What it does.
        responsibilities = "responsibilities": List<Text<'n>>;
    }

    /// A kind of agent.
    struct AgentSpec<'n> "Agent" {
        /// Its name; endpoints name it by the label `pilotfish.dev/agent`.
        name = "name": Text<'n>, required;
        /// How many run.
        replicas = "replicas": Int<'n>, later;
        /// What each needs.
        resources = "resources": ResourcesSpec<'n>, later;
        /// What it is able to do: `name`, `name@version` or `{name, version}`.
        capabilities = "capabilities": List<CapabilitySpec<'n>>;
        /// Further labels.
        labels = "labels": TextMap<'n>;
    }

    /// A capability with a version.
    struct VersionedCapability<'n> "Capability" {
        /// Its name.
        name = "name": Text<'n>, required;
        /// Its version, `1.2.0`.
        version = "version": Quantity<'n>;
    }

    /// What an agent needs.
    struct ResourcesSpec<'n> "Resources" {
        /// Cores, `500m` or `2`.
        cpu = "cpu": Quantity<'n>;
        /// Bytes, `4Gi`.
        memory = "memory": Quantity<'n>;
        /// Cards.
        gpu = "gpu": Quantity<'n>;
    }

    /// How many agents run in a region.
    struct RegionSpec<'n> "Region" {
        /// Region.
        name = "name": Text<'n>, required;
        /// Number by agent name.
        agent_distribution = "agent_distribution": Map<'n, Int<'n>>;
    }

    /// How the number of agents follows load.
    struct AutoScalingSpec<'n> "AutoScaling" {
        /// On or off.
        enabled = "enabled": Bool<'n>;
        /// Never fewer.
        min_replicas = "min_replicas": Int<'n>;
        /// Never more.
        max_replicas = "max_replicas": Int<'n>;
        /// Aim, `70%`.
        target_utilization = "target_utilization": Quantity<'n>;
        /// More above this, `80%`.
        scale_up_threshold = "scale_up_threshold": Quantity<'n>;
        /// Fewer below this, `50%`.
        scale_down_threshold = "scale_down_threshold": Quantity<'n>;
    }

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

/// A number or a text with a unit, as Kubernetes quantities are: `2`, `"2"`, `4Gi`, `70%`.
#[derive(Debug, Clone, Copy)]
pub struct Quantity<'n>(pub Text<'n>);

impl<'n> Raw<'n> for Quantity<'n> {
    const SHAPE: Shape = Shape::Either(&[Shape::Text, Shape::Number]);
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        match node.scalar() {
            Some(scalar) => Some(Quantity(Text { value: scalar.text, node })),
            None => {
                let message = format!("expected a number or a text, found {}", node.kind().article());
                reader.diagnose.error(node, message, None);
                None
            }
        }
    }
}

/// A capability: `name`, `name@version` or `{name, version}`.
#[derive(Debug, Clone)]
pub struct CapabilitySpec<'n> {
    /// Its name, with `@version` perhaps.
    pub name: Text<'n>,
    /// Its version when written apart.
    pub version: Option<Quantity<'n>>,
}

impl<'n> Raw<'n> for CapabilitySpec<'n> {
    const SHAPE: Shape = Shape::Either(&[Shape::Text, <VersionedCapability<'n> as Raw<'n>>::SHAPE]);
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        if node.kind() == Type::Map {
            let versioned = VersionedCapability::read(node, reader)?;
            return Some(CapabilitySpec { name: versioned.name?, version: versioned.version });
        }
        Some(CapabilitySpec { name: Text::read(node, reader)?, version: None })
    }
}
