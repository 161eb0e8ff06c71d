//! Flags of placement: what makes replicas exist, and where it is.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

#[cfg(feature = "kubernetes")]
use crate::orchestrator::executor::kubernetes;

const HEADING: &str = "Placement";

/// How agents of AgentClusters are started.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = HEADING)]
pub struct PlacementSettings {
    /// What starts agents: `process` orders the machines that run `pilotfish node`; `kubernetes` makes a Deployment for each
    /// agent, and the cluster's own scheduler places its pods.
    #[arg(long, env = "PILOTFISH_EXECUTOR", value_name = "KIND", default_value = "process")]
    pub executor: ExecutorKind,

    /// How long the replicas of a node that is silent are left alone before others are started elsewhere; it begins when the
    /// node's lease of 3 s is over.
    #[arg(long, env = "PILOTFISH_NODE_GRACE", value_name = "DURATION", default_value = "10s", value_parser = grace)]
    pub node_grace: Duration,

    /// The namespace of the cluster that all agents go to; it has to exist. [default: the agent's own namespace]
    #[arg(long, env = "PILOTFISH_KUBERNETES_NAMESPACE", value_name = "NAME")]
    pub kubernetes_namespace: Option<String>,

    /// How to reach the cluster, as kubectl's file. [default: the pod's service account, else $KUBECONFIG or ~/.kube/config]
    #[arg(long, env = "PILOTFISH_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Image of the sidecar in agents' pods. [default: pilotfish-proxy and this program's version]
    #[arg(long, env = "PILOTFISH_KUBERNETES_PROXY_IMAGE", value_name = "IMAGE")]
    pub kubernetes_proxy_image: Option<String>,

    /// The address that pods reach the control plane at, `https://HOST:PORT`; several by commas. [default: --advertise]
    #[arg(long, env = "PILOTFISH_KUBERNETES_CONTROL", value_name = "URL")]
    pub kubernetes_control: Option<String>,
}

#[cfg(feature = "kubernetes")]
impl PlacementSettings {
    /// How agents become pods. `advertise` is --advertise; `mesh` is the trust domain.
    ///
    /// # Errors
    /// Nobody says where pods reach the control plane.
    pub fn kubernetes(&self, advertise: Option<&str>, mesh: &str) -> Result<kubernetes::Settings, String> {
        let control = self.kubernetes_control.clone().or_else(|| advertise.map(|at| format!("https://{at}")));
        let control = control.ok_or(
            "--executor kubernetes: say where pods reach this control plane, by --kubernetes-control https://HOST:PORT or \
             --advertise HOST:PORT",
        )?;
        let image = concat!("pilotfish-proxy:", env!("CARGO_PKG_VERSION"));
        Ok(kubernetes::Settings {
            namespace: self.kubernetes_namespace.clone(),
            control,
            proxy_image: self.kubernetes_proxy_image.clone().unwrap_or_else(|| image.to_owned()),
            mesh: mesh.to_owned(),
            recheck: kubernetes::RECHECK,
            patience: kubernetes::PATIENCE,
        })
    }
}

/// What makes replicas exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExecutorKind {
    /// Processes on nodes.
    Process,
    /// Pods.
    Kubernetes,
}

fn grace(text: &str) -> Result<Duration, String> {
    super::bounded(text, Duration::ZERO, Duration::from_secs(24 * 3600))
}
