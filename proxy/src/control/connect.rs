//! A connection to a control plane: by this sidecar's own DNS, and in a simulation over its network.

#[cfg(feature = "sim")]
use std::net::SocketAddr;
#[cfg(feature = "sim")]
use std::sync::Arc;

use pilotfish_client::{Address, Connection, Problem, Proof};
#[cfg(feature = "sim")]
use pilotfish_client::{CONNECT, HANDSHAKE, peer, speak};

#[cfg(feature = "sim")]
use crate::net::{Net, simulated};
use crate::server::Shared;

/// Connects to one control plane.
///
/// # Errors
/// It is away, or it is none.
pub async fn connect(shared: &Shared, address: &Address, proof: &Proof) -> Result<Connection, Problem> {
    let found = shared.dns.lookup(&address.host).await;
    let found = found.map_err(|why| Problem::Away(format!("cannot resolve: {}", why.0)))?;
    #[cfg(feature = "sim")]
    if let (Net::Simulated(network), Some(ip)) = (&shared.net, found.first()) {
        let address = SocketAddr::new(*ip, address.port);
        // Such connections stay on their thread, which this future need not.
        let made = tokio::task::spawn_local(within(network.clone(), address, proof.clone()));
        return made.await.map_err(away)?;
    }
    pilotfish_client::connect(found.iter().copied(), address.port, proof).await
}

/// The same in a simulated network, where the peer's chain comes in plaintext.
#[cfg(feature = "sim")]
async fn within(
    network: Arc<dyn simulated::Network>,
    address: SocketAddr,
    proof: Proof,
) -> Result<Connection, Problem> {
    let handshakes = async {
        let mut io = network.connect(address, false).await.map_err(away)?;
        let local = io.local_addr().map_err(away)?.ip();
        let own = match &proof {
            Proof::Live(live) => live.load().credentials.clone(),
            Proof::Pinned(_) => None,
        };
        let own = own.map(|own| own.chain.clone()).unwrap_or_default();
        let chain = simulated::dial(&mut io, &own).await.map_err(away)?;
        let (connection, driver) = speak(io, local, peer(Some(&chain), &proof)?).await?;
        tokio::task::spawn_local(driver);
        Ok(connection)
    };
    let result = tokio::time::timeout(CONNECT + HANDSHAKE, handshakes).await;
    result.unwrap_or_else(|_| Err(Problem::Away(format!("no handshake within {HANDSHAKE:?}"))))
}

#[cfg(feature = "sim")]
fn away(error: impl std::fmt::Display) -> Problem {
    Problem::Away(error.to_string())
}
