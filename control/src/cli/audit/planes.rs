//! The control planes of one store, each with the audit logs that were sent to it: all are asked, and what did not answer is said.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::audit::Holder;
use crate::cli::client::{Client, Connection};
use crate::cli::failed::Failed;
use crate::cli::terminal::harmless;

/// How long another control plane than the one that was named may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A control plane and what it answered.
#[derive(Debug)]
pub struct Answered<T> {
    /// Its name; empty when it is the only one.
    pub control: String,
    /// The answer.
    pub answer: T,
}

/// The one that was named, and the others of its store.
#[derive(Debug)]
pub struct Planes {
    first: Client,
    others: Vec<(Holder, Client)>,
    /// Why which ones are not asked, for people.
    missing: Vec<String>,
}

impl Planes {
    /// Finds them.
    ///
    /// # Errors
    /// The one that was named cannot be reached, or does not know who asks.
    pub async fn open(connection: &Connection) -> Result<Planes, Failed> {
        let first = Client::open(connection).await?;
        let mut holders: Vec<Holder> = first.get("/v1/audit/holders").await?;
        holders.retain(|holder| holder.control != first.server.control);
        let mut planes = Planes { first, others: Vec::new(), missing: Vec::new() };
        for holder in holders {
            let there = Connection {
                control: Some(holder.address.clone()),
                data: None,
                request_timeout: connection.request_timeout.min(PATIENCE),
                ..connection.clone()
            };
            match Client::open(&there).await {
                Ok(client) if client.server.control == holder.control => planes.others.push((holder, client)),
                Ok(client) => {
                    let why = format!("`{}` answers there", client.server.control);
                    planes.miss(&holder, &why);
                }
                Err(failed) => planes.miss(&holder, &failed.message),
            }
        }
        Ok(planes)
    }

    fn miss(&mut self, holder: &Holder, why: &str) {
        let line = format!(
            "control plane {} ({}) did not answer, and what only it has is not looked at: {why}",
            holder.control, holder.address
        );
        self.missing.push(harmless(&line, false));
    }

    /// Says which ones are not asked any more since the last time.
    pub fn say_missing(&mut self) -> usize {
        let missing = std::mem::take(&mut self.missing);
        missing.iter().for_each(|line| eprintln!("{line}"));
        missing.len()
    }

    /// Asks all of them.
    ///
    /// # Errors
    /// The one that was named gives no good answer; another one that does not is missing from then on.
    pub async fn ask<T: DeserializeOwned>(&mut self, path: &str) -> Result<Vec<Answered<T>>, Failed> {
        let alone = self.others.is_empty();
        let control = if alone { String::new() } else { self.first.server.control.clone() };
        let mut answered = vec![Answered { control, answer: self.first.get(path).await? }];
        for (holder, client) in std::mem::take(&mut self.others) {
            match client.get(path).await.map_err(Failed::from) {
                Ok(answer) => {
                    answered.push(Answered { control: holder.control.clone(), answer });
                    self.others.push((holder, client));
                }
                Err(failed) => self.miss(&holder, &failed.message),
            }
        }
        Ok(answered)
    }
}
