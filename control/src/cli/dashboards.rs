//! `pilotfish dashboards`: what Grafana and Prometheus need to show and watch sidecars.

use std::path::PathBuf;

use clap::Args;

use super::failed::Failed;
use super::output::json;
use super::terminal;
use crate::dashboards;

/// The files that are written.
const GRAFANA: &str = "pilotfish-grafana.json";
const PROMETHEUS: &str = "pilotfish-rules.yaml";

/// Write a Grafana dashboard and Prometheus rules for the sidecars' metrics.
///
/// `pilotfish-grafana.json` is imported in Grafana (Dashboards, New, Import), `pilotfish-rules.yaml` goes into
/// `rule_files` of prometheus.yml. Prometheus scrapes /metrics of each sidecar (port 15100 on loopback; see
/// `pilotfish-proxy --admin`), one job for each agent: the label `job` is taken for the agent.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish dashboards --out monitoring
  pilotfish dashboards --grafana | curl -s -H 'content-type: application/json' --data-binary @- ...
  pilotfish dashboards --prometheus > /etc/prometheus/pilotfish-rules.yaml")]
pub struct Dashboards {
    /// The folder for both files; made when it is not there
    #[arg(long, value_name = "DIR", default_value = ".", conflicts_with_all = ["grafana", "prometheus"])]
    out: PathBuf,

    /// Only print the dashboard
    #[arg(long, conflicts_with = "prometheus")]
    grafana: bool,

    /// Only print the rules
    #[arg(long)]
    prometheus: bool,
}

impl Dashboards {
    /// Writes.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn run(self) -> Result<(), Failed> {
        let (grafana, prometheus) = (json(&dashboards::grafana())?, dashboards::prometheus());
        if self.grafana || self.prometheus {
            terminal::print(if self.grafana { &grafana } else { &prometheus });
            return Ok(());
        }
        let about = |path: &PathBuf| {
            let path = path.display().to_string();
            move |error: std::io::Error| Failed::refused(format!("{path}: {error}"))
        };
        std::fs::create_dir_all(&self.out).map_err(about(&self.out))?;
        for (name, text) in [(GRAFANA, grafana), (PROMETHEUS, prometheus)] {
            let path = self.out.join(name);
            std::fs::write(&path, text).map_err(about(&path))?;
            terminal::print(&format!("{}\n", path.display()));
        }
        Ok(())
    }
}
