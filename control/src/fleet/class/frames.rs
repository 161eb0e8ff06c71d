//! The frames of a class, each made once and shared by the streams that need it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use pilotfish_config::wire::{self, Key, ToSidecar, Update};

use super::super::ranks::Ranked;
use super::super::told::told;
use super::{Inner, RankFrame};
use crate::log;

/// At most this many updates are kept for others that come from the same step.
const MOST_DELTAS: usize = 64;

impl Inner {
    /// The update from the step at this position.
    pub(super) fn delta(&mut self, at: usize) -> Option<Bytes> {
        let from = self.steps.get(at)?.version;
        if let Some(made) = self.deltas.get(&from) {
            return Some(made.clone());
        }
        let since = || self.steps.iter().skip(at + 1);
        let keys: BTreeSet<&Key> = since().flat_map(|step| &step.keys).collect();
        let ids: BTreeSet<&Arc<str>> = since().flat_map(|step| &step.ids).collect();
        let mut update = self.update(false);
        update.trust = since().any(|step| step.trust).then(|| (*self.view.trust).clone());
        update.actions = since().any(|step| step.actions).then(|| (*self.view.actions).clone());
        for key in keys {
            let stored = self.view.committed.documents.get(key).filter(|_| self.scope.document(key));
            match stored {
                Some(stored) => update.documents.push(told(&stored.document).into_owned()),
                None => update.documents_gone.push(key.clone()),
            }
        }
        for id in ids {
            let shown = self.view.endpoints.get(id);
            match shown.filter(|shown| self.scope.endpoint(&shown.endpoint)) {
                Some(shown) => update.endpoints.push(shown.endpoint.clone()),
                None => update.endpoints_gone.push(id.to_string()),
            }
        }
        let bytes = framed(&ToSidecar::Update(Box::new(update)))?;
        if self.deltas.len() >= MOST_DELTAS {
            self.deltas.clear();
        }
        self.deltas.insert(from, bytes.clone());
        Some(bytes)
    }

    /// Everything.
    pub(super) fn whole(&mut self) -> Option<Bytes> {
        if let Some(full) = &self.full {
            return Some(full.clone());
        }
        let mut update = self.update(true);
        let documents = self.view.committed.documents.iter().filter(|(key, _)| self.scope.document(key));
        update.documents = documents.map(|(_, stored)| told(&stored.document).into_owned()).collect();
        let shown = self.view.endpoints.iter().map(|(_, shown)| &shown.endpoint);
        update.endpoints = shown.filter(|endpoint| self.scope.endpoint(endpoint)).cloned().collect();
        update.endpoints.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        update.trust = Some((*self.view.trust).clone());
        update.actions = Some((*self.view.actions).clone());
        self.full = framed(&ToSidecar::Update(Box::new(update)));
        self.full.clone()
    }

    pub(super) fn make_ranks(&self, all: Vec<Ranked>) -> RankFrame {
        let seen = |ranked: &Ranked| {
            let shown = self.view.endpoints.get(&ranked.rank.endpoint);
            shown.is_some_and(|shown| self.scope.endpoint(&shown.endpoint))
        };
        let mut ranked: Vec<Ranked> = all.into_iter().filter(seen).collect();
        ranked.sort_unstable_by(|a, b| a.rank.endpoint.cmp(&b.rank.endpoint));
        let Some(first) = ranked.first() else { return RankFrame::default() };
        let sole =
            first.sole.clone().filter(|sole| ranked.iter().all(|other| other.sole.as_ref() == Some(sole)));
        let ranks = ranked.into_iter().map(|ranked| ranked.rank).collect();
        RankFrame { frame: framed(&ToSidecar::Ranks(wire::Ranks { ranks })), sole }
    }

    fn update(&self, full: bool) -> Update {
        let newest = self.newest();
        Update {
            version: newest.version,
            digest: newest.digest.to_string(),
            full,
            documents: Vec::new(),
            documents_gone: Vec::new(),
            endpoints: Vec::new(),
            endpoints_gone: Vec::new(),
            trust: None,
            actions: None,
        }
    }
}

/// A message as a frame; one that cannot be framed is a fault of ours, and is logged.
pub(in crate::fleet) fn framed(message: &ToSidecar) -> Option<Bytes> {
    match wire::frame(message) {
        Ok(frame) => Some(frame.into()),
        Err(error) => {
            log::error!("a message to a sidecar cannot be written", why = error);
            None
        }
    }
}
