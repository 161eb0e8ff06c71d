//! What is not there yet, in the shape that it will have: documents and fleet. Goes when they land.
#![allow(missing_docs, unused, clippy::unused_async)]
pub mod fleet {
    use crate::api::types;
    use crate::resources::{Planned, Resources};
    use crate::store::{Store, StoreError};
    use bytes::Bytes;
    use pilotfish_config::wire::{self, ToControl, WireError};
    use pilotfish_identity::SpiffeId;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::{mpsc, watch};
    #[derive(Debug)]
    pub struct Fleet;
    #[derive(Debug)]
    pub struct Settings {
        pub control: String,
        pub trust_domain: pilotfish_identity::TrustDomain,
        pub lease: Duration,
    }
    impl Fleet {
        pub async fn start(
            _: Arc<dyn Store>,
            _: Arc<Resources>,
            _: watch::Receiver<Arc<wire::Trust>>,
            _: Settings,
        ) -> Result<Arc<Fleet>, StoreError> {
            Ok(Arc::new(Fleet))
        }
        pub async fn serve(
            &self,
            _peer: SpiffeId,
            _incoming: mpsc::Receiver<Result<ToControl, WireError>>,
            _outgoing: mpsc::Sender<Bytes>,
        ) {
        }
        pub fn status(&self) -> types::FleetStatus {
            types::FleetStatus { documents: 0, version: 0, sidecars: vec![] }
        }
        pub fn agents(&self, _: Option<&str>, _: Option<&str>) -> Result<types::Agents, String> {
            Ok(types::Agents { agents: vec![], others: vec![] })
        }
        pub fn preview(&self, _: &Planned) -> Vec<types::SidecarDiff> {
            vec![]
        }
        pub async fn wait(&self, _: u64, _: Duration) -> types::Waited {
            types::Waited { done: true, concerned: 0, missing: vec![] }
        }
        pub fn explain(&self, _: &types::Question) -> Result<types::Explanation, String> {
            Err("stub".into())
        }
    }
}
