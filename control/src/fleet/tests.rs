//! The fleet from outside: streams over channels, documents and time made here.

mod drains;
mod edges;
mod hellos;
mod leases;
mod limits;
mod model;
mod news;
mod pushes;
mod replicas;
mod several;
mod world;
