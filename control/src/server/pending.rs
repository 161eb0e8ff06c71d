//! What is not there yet, in the shape that it will have: documents and fleet. Goes when they land.
#![allow(missing_docs, unused, clippy::unused_async)]
pub mod resources {
    use crate::api::types;
    use crate::store::{Store, StoreError};
    use pilotfish_config::Model;
    use pilotfish_config::wire::Key;
    use std::sync::Arc;
    #[derive(Debug)]
    pub struct Resources;
    #[derive(Debug)]
    pub struct Committed {
        pub version: u64,
        pub model: Arc<Model>,
    }
    #[derive(Debug)]
    pub struct Planned {
        pub warnings: Vec<String>,
    }
    impl Planned {
        pub fn differences(&self) -> Vec<types::Difference> {
            vec![]
        }
    }
    #[derive(Debug)]
    pub enum Refusal {
        Invalid(types::Failure),
        Conflict(String),
        NotFound(String),
        Store(StoreError),
    }
    impl Resources {
        pub async fn open(_: Arc<dyn Store>) -> Result<Arc<Resources>, StoreError> {
            Ok(Arc::new(Resources))
        }
        pub fn newest(&self) -> Arc<Committed> {
            Arc::new(Committed { version: 0, model: Arc::default() })
        }
        pub fn watch(&self) -> tokio::sync::watch::Receiver<Arc<Committed>> {
            tokio::sync::watch::channel(self.newest()).1
        }
        pub async fn plan(&self, _: &types::Submission) -> Result<Planned, Refusal> {
            Err(Refusal::NotFound("stub".into()))
        }
        pub async fn apply(&self, _: &types::Submission, _: &str) -> Result<types::Applied, Refusal> {
            Err(Refusal::NotFound("stub".into()))
        }
        pub async fn delete(&self, _: &[Key], _: &str) -> Result<types::Applied, Refusal> {
            Err(Refusal::NotFound("stub".into()))
        }
        pub async fn rollback(&self, _: u64, _: &str) -> Result<types::Applied, Refusal> {
            Err(Refusal::NotFound("stub".into()))
        }
        pub async fn history(&self, _: usize) -> Result<Vec<types::Commit>, Refusal> {
            Ok(vec![])
        }
        pub fn get(&self, _: Option<&str>, _: Option<&str>, _: Option<&str>) -> Vec<types::Resource> {
            vec![]
        }
    }
}
pub mod fleet {
    use super::resources::{Planned, Resources};
    use crate::api::types;
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
