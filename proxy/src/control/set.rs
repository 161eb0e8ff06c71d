//! What the control plane gave this sidecar: documents, endpoints, whom to trust. Deltas lead from one version to the
//! next; entries are shared between versions, so a copy costs its maps and not its texts.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_config::wire::{Actions, Document, Endpoint, Key, Resume, Trust, Update};

/// One version of everything.
#[derive(Debug, Clone, Default)]
pub struct Set {
    /// The control plane's number for it; 0 before the first.
    pub version: u64,
    /// The control plane's digest of it.
    pub digest: String,
    documents: BTreeMap<Key, Arc<Document>>,
    endpoints: BTreeMap<String, Arc<Endpoint>>,
    trust: Option<Arc<Trust>>,
    actions: Option<Arc<Actions>>,
}

/// What an update touched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Touched {
    /// Documents are new, different or gone.
    pub documents: bool,
    /// Endpoints are new, different or gone.
    pub endpoints: bool,
    /// Whom to trust may be different.
    pub trust: bool,
}

impl Touched {
    /// Everything that either touched.
    #[must_use]
    pub fn and(self, other: Touched) -> Touched {
        Touched {
            documents: self.documents || other.documents,
            endpoints: self.endpoints || other.endpoints,
            trust: self.trust || other.trust,
        }
    }
}

impl Set {
    /// Goes on to the version that `update` leads to, and says what that touched.
    pub fn apply(&mut self, update: Update) -> Touched {
        let before = update.full.then(|| std::mem::take(self));
        let mut touched = Touched { trust: update.trust.is_some(), ..Touched::default() };
        for key in &update.documents_gone {
            touched.documents |= self.documents.remove(key).is_some();
        }
        for document in update.documents {
            touched.documents = true;
            self.documents.insert(document.key.clone(), Arc::new(document));
        }
        for id in &update.endpoints_gone {
            touched.endpoints |= self.endpoints.remove(id).is_some();
        }
        for endpoint in update.endpoints {
            touched.endpoints = true;
            self.endpoints.insert(endpoint.id.clone(), Arc::new(endpoint));
        }
        if let Some(trust) = update.trust {
            self.trust = Some(Arc::new(trust));
        }
        if let Some(actions) = update.actions {
            self.actions = Some(Arc::new(actions));
        }
        (self.version, self.digest) = (update.version, update.digest);
        if let Some(before) = before {
            touched.documents = !same_documents(&before.documents, &self.documents);
            touched.endpoints = before.endpoints != self.endpoints;
            // Trust that a snapshot does not name is no reason to trust nobody: it is whole whenever it is there.
            self.trust = self.trust.take().or(before.trust);
            // So are actions; an older control plane, which knows none, lets nobody go.
            self.actions = self.actions.take().or(before.actions);
        }
        touched
    }

    /// What a hello says of it; `None` before the first version.
    pub fn resume(&self) -> Option<Resume> {
        (self.version > 0).then(|| Resume { version: self.version, digest: self.digest.clone() })
    }

    /// Its documents, by kind, namespace and name.
    pub fn documents(&self) -> impl ExactSizeIterator<Item = &Document> {
        self.documents.values().map(|document| &**document)
    }

    /// Its endpoints, by id.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &Endpoint> {
        self.endpoints.values().map(|endpoint| &**endpoint)
    }

    /// Whom to trust, once the control plane has said so.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_deref()
    }

    /// Who is held to what, once the control plane has said so.
    pub fn actions(&self) -> Option<&Actions> {
        self.actions.as_deref()
    }

    /// All of it as one update, for the disk.
    pub fn as_update(&self) -> Update {
        Update {
            version: self.version,
            digest: self.digest.clone(),
            full: true,
            documents: self.documents().cloned().collect(),
            documents_gone: Vec::new(),
            endpoints: self.endpoints().cloned().collect(),
            endpoints_gone: Vec::new(),
            trust: self.trust().cloned(),
            actions: self.actions().cloned(),
        }
    }
}

fn same_documents(one: &BTreeMap<Key, Arc<Document>>, other: &BTreeMap<Key, Arc<Document>>) -> bool {
    let same = |one: &Document, other: &Document| {
        one.key == other.key && one.source == other.source && one.body.get() == other.body.get()
    };
    one.len() == other.len() && one.values().zip(other.values()).all(|(one, other)| same(one, other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_config::wire::Status;

    fn document(name: &str, body: &str) -> Document {
        let key = Key { kind: "ServiceEntry".into(), namespace: "default".into(), name: name.into() };
        let body = serde_json::value::RawValue::from_string(body.into()).unwrap();
        Document { key, source: format!("{name}.yaml:1"), body }
    }

    fn endpoint(id: &str) -> Endpoint {
        Endpoint {
            capacity: 0,
            id: id.into(),
            agent: "a".into(),
            namespace: "default".into(),
            trust_domain: None,
            address: "127.0.0.1:1".parse().unwrap(),
            labels: BTreeMap::new(),
            locality: None,
            weight: 1,
            capabilities: Vec::new(),
            status: Status::Ready,
            dedup_epoch: None,
        }
    }

    fn update(version: u64, full: bool) -> Update {
        Update { full, version, ..Set::default().as_update() }
    }

    #[test]
    fn deltas_add_change_and_remove() {
        let mut set = Set::default();
        assert_eq!(set.resume(), None);
        let first = Update {
            documents: vec![document("a", "1"), document("b", "1")],
            endpoints: vec![endpoint("x"), endpoint("y")],
            ..update(1, true)
        };
        let touched = set.apply(first);
        assert!(touched.documents && touched.endpoints && !touched.trust);
        let second = Update {
            documents: vec![document("a", "2")],
            documents_gone: vec![document("b", "0").key],
            endpoints_gone: vec!["x".into(), "never".into()],
            ..update(2, false)
        };
        set.apply(second);
        let bodies: Vec<&str> = set.documents().map(|document| document.body.get()).collect();
        assert_eq!(bodies, ["2"]);
        let ids: Vec<&str> = set.endpoints().map(|endpoint| endpoint.id.as_str()).collect();
        assert_eq!(ids, ["y"]);
        assert_eq!(set.resume().map(|resume| resume.version), Some(2));
        let nothing = Update { endpoints_gone: vec!["never".into()], ..update(3, false) };
        assert_eq!(set.apply(nothing), Touched::default());
    }

    #[test]
    fn a_full_update_replaces_and_the_same_again_touches_nothing() {
        let mut set = Set::default();
        let trust = Some(Trust::default());
        let actions = Some(Actions::default());
        set.apply(Update { documents: vec![document("a", "1")], trust, actions, ..update(1, true) });
        let again = Update { documents: vec![document("a", "1")], ..update(7, true) };
        assert_eq!(set.apply(again), Touched::default());
        assert!(set.trust().is_some() && set.actions().is_some() && set.version == 7);
        let touched = set.apply(Update { documents: vec![document("c", "1")], ..update(8, true) });
        assert!(touched.documents && set.documents().len() == 1);
    }
}
