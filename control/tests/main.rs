//! Tests from outside: the real process, real sockets, real files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod alerts;
mod analysis;
mod audit;
mod authz;
mod cli;
mod dashboards;
mod deploy;
#[cfg(feature = "etcd")]
mod fleet_etcd;
mod graph;
mod holds;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod mesh;
mod mesh_limits;
mod mesh_traces;
mod node;
mod node_matrix;
mod orchestrator;
mod placement;
mod placement_inputs;
mod resources;
mod server;
mod server_backup;
mod server_capacity;
mod server_documents;
mod server_hostile;
mod server_identity;
mod server_page;
mod server_rotation;
mod server_stream;
mod server_traces;
mod store;
mod support;
mod tap;
mod trace_recall;
