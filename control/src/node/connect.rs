//! A node's connection to a control plane, by the DNS of its machine.

use std::time::Duration;

use pilotfish_client::{Address, CONNECT, Connection, Problem, Proof};
use tokio::time::timeout;

/// How long a name may take to be resolved.
const RESOLVE: Duration = CONNECT.saturating_mul(2);

/// Connects to a control plane.
///
/// # Errors
/// It is away, or it is none.
pub(super) async fn connect(address: &Address, proof: &Proof) -> Result<Connection, Problem> {
    let found = timeout(RESOLVE, tokio::net::lookup_host((address.host.as_str(), address.port))).await;
    let found = found.map_err(|_| Problem::Away("its name is not resolved in time".into()))?;
    let found = found.map_err(|error| Problem::Away(format!("cannot resolve: {error}")))?;
    pilotfish_client::connect(found.map(|address| address.ip()), address.port, proof).await
}
