//! One look at the cluster: Deployments are made, changed and deleted until they are what is wished for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::{Api, ApiError, Kind, annotation, text};
use super::manifest::{self, Owner};
use super::{DEPLOYMENT, GROUP, MANAGED_BY, MESH, Settings, Shared, TERM, Told, Wish, name, token, unfit};
use crate::placement::demand::Wanted;

/// What belongs to a Deployment is looked at this often.
const RARELY: Duration = Duration::from_secs(60);
/// An object that somebody else changes at the same time is tried so often in one pass.
const RACES: usize = 4;
/// Reasons that one sentence names.
const NAMED: usize = 3;

/// What the last pass left, so that the next does nothing where nothing changed.
#[derive(Debug, Default)]
pub(super) struct Known {
    looked: Option<Instant>,
    /// What that look was for.
    wished: Vec<Value>,
    groups: BTreeMap<String, Applied>,
    classes: Option<(Instant, BTreeMap<i64, String>)>,
}

/// What was applied of a group.
#[derive(Debug)]
struct Applied {
    deployment: Value,
    /// Of the live one after that: it counts up with each change by anybody.
    generation: i64,
    /// Budget and Secret were made for this Deployment and so many replicas, then.
    rest: Option<(Owner, u32, Instant)>,
}

impl Known {
    /// Whether the cluster has to be looked at.
    pub(super) fn is_due(&mut self, settings: &Settings, wish: &Wish) -> bool {
        let wished: Vec<Value> = wish
            .desired
            .iter()
            .map(|desired| manifest::deployment(settings, &desired.wanted, desired.replicas, wish.term, None))
            .collect();
        let due =
            self.looked.is_none_or(|looked| looked.elapsed() >= settings.recheck) || wished != self.wished;
        self.wished = wished;
        due
    }
}

/// Why a group is not as wished, and whether the pass should end.
enum Trouble {
    Group(String),
    All(String),
}

impl From<ApiError> for Trouble {
    fn from(error: ApiError) -> Trouble {
        match error {
            ApiError::Away(_) => Trouble::All(error.to_string()),
            ApiError::Missing(why) if why.contains("namespaces") => {
                Trouble::Group(format!("{why}: make the namespace, or choose one by --kubernetes-namespace"))
            }
            error => Trouble::Group(error.to_string()),
        }
    }
}

impl Shared {
    /// One look. What is told is what is wrong.
    pub(super) async fn pass(&self, wish: &Wish, known: &mut Known) -> Told {
        let mut told = Told::default();
        // An error is tried again at the next wish.
        known.looked = None;
        match self.look(wish, known, &mut told).await {
            Ok(()) if told.waiting.is_empty() => known.looked = Some(Instant::now()),
            Ok(()) => {
                let named: Vec<String> =
                    told.waiting.iter().take(NAMED).map(|(group, why)| format!("{group}: {why}")).collect();
                let further = told.waiting.len().saturating_sub(NAMED);
                let further = if further > 0 { format!("; and {further} more") } else { String::new() };
                told.failed = Some(format!("{}{further}", named.join("; ")));
            }
            Err(why) => {
                told.notes.push(why.clone());
                told.failed = Some(why);
            }
        }
        told
    }

    async fn look(&self, wish: &Wish, known: &mut Known, told: &mut Told) -> Result<(), String> {
        let (namespace, labels) = (self.settings.namespace.as_deref(), self.settings.labels());
        let mut live = Vec::new();
        let listed = self.api.list(Kind::Deployment, namespace, &labels, |one| live.push(one)).await;
        listed.map_err(|error| error.to_string())?;
        for one in &live {
            not_overtaken(one, wish.term)?;
        }
        let live: BTreeMap<(&str, &str), &Value> =
            live.iter().filter_map(|one| Some((place(one)?, one))).collect();
        self.priorities(wish, known, told).await;
        let mut wanted_ones = BTreeSet::new();
        for desired in &wish.desired {
            let group = &desired.wanted.group;
            let object = name::object(group);
            let place = (self.settings.namespace_of(&group.namespace), &*object);
            wanted_ones.insert((place.0.to_owned(), object.clone()));
            // What runs goes on: it is the document that cannot be followed.
            if unfit(&desired.wanted).is_some() || off(&desired.wanted, "local_scheduling") {
                continue;
            }
            let live = live.get(&place).copied();
            match self.group(wish.term, &desired.wanted, desired.replicas, live, known).await {
                Ok(None) => {}
                Ok(Some(why)) => {
                    told.notes.push(format!("{}: {why}", group.id));
                    told.waiting.insert(group.id.clone(), why);
                }
                Err(Trouble::Group(why)) => {
                    known.groups.remove(&object);
                    told.waiting.insert(group.id.clone(), why);
                }
                Err(Trouble::All(why)) => {
                    known.groups.remove(&object);
                    return Err(why);
                }
            }
        }
        self.prune(&live, &wanted_ones, told).await?;
        known.groups.retain(|object, _| wanted_ones.iter().any(|(_, name)| name == object));
        Ok(())
    }

    /// Makes one group so. Gives what is wrong with it although everything was applied.
    async fn group(
        &self,
        term: u64,
        wanted: &Wanted,
        replicas: u32,
        live: Option<&Value>,
        known: &mut Known,
    ) -> Result<Option<String>, Trouble> {
        let replicas = if off(wanted, "agent_placement") {
            let now = live.and_then(|live| live["spec"]["replicas"].as_u64()).unwrap_or_default();
            replicas.min(u32::try_from(now).unwrap_or(u32::MAX))
        } else {
            replicas
        };
        let class = known.classes.as_ref().and_then(|(_, all)| all.get(&i64::from(wanted.group.priority)));
        let class = class.filter(|_| wanted.group.priority != 0).map(String::as_str);
        let deployment = manifest::deployment(&self.settings, wanted, replicas, term, class);
        let object = name::object(&wanted.group);
        let same = known.groups.get(&object).is_some_and(|applied| {
            applied.deployment == deployment
                && live.is_some_and(|live| live["metadata"]["generation"] == applied.generation)
        });
        let mut fresh = None;
        if !same {
            fresh = Some(self.apply(Kind::Deployment, deployment.clone(), live.cloned(), term).await?);
        }
        let Some(now) = fresh.as_ref().or(live) else { return Ok(None) };
        let owner = Owner {
            name: object.clone(),
            namespace: self.settings.namespace_of(&wanted.group.namespace).to_owned(),
            uid: text(now, "/metadata/uid").unwrap_or_default().to_owned(),
        };
        let rest = known.groups.remove(&object).and_then(|applied| applied.rest);
        let rest =
            rest.filter(|(of, number, then)| *of == owner && *number == replicas && then.elapsed() < RARELY);
        let rest = match rest {
            Some(rest) => rest,
            None => {
                self.rest(wanted, replicas, &owner, term).await?;
                (owner, replicas, Instant::now())
            }
        };
        let generation = now["metadata"]["generation"].as_i64().unwrap_or_default();
        known.groups.insert(object, Applied { deployment, generation, rest: Some(rest) });
        Ok(cannot_make_pods(now))
    }

    /// What belongs to a Deployment.
    async fn rest(&self, wanted: &Wanted, replicas: u32, owner: &Owner, term: u64) -> Result<(), Trouble> {
        let live = self.api.metadata(Kind::Secret, &owner.namespace, &owner.name).await?;
        let good = match &live {
            Some(live) => {
                owned_by(live, owner)
                    && token::is_good(&self.tokens, live, replicas).await.map_err(Trouble::Group)?
            }
            None => false,
        };
        if !good {
            // Before a token is made for nothing.
            ours(live.as_ref())?;
            let fresh = token::make(&self.tokens, &wanted.group, replicas).await.map_err(Trouble::Group)?;
            let secret =
                manifest::secret(&self.settings, wanted, owner, &fresh.text, &fresh.id, fresh.expires);
            self.apply(Kind::Secret, secret, live, term).await?;
        }
        let budget = manifest::disruption_budget(&self.settings, wanted, replicas, owner);
        let live = self.api.metadata(Kind::DisruptionBudget, &owner.namespace, &owner.name).await?;
        self.apply(Kind::DisruptionBudget, budget, live, term).await?;
        Ok(())
    }

    /// Applies to what was seen, or to nothing that is ours and newer.
    async fn apply(
        &self,
        kind: Kind,
        mut object: Value,
        mut live: Option<Value>,
        term: u64,
    ) -> Result<Value, Trouble> {
        let (namespace, name) =
            place(&object).map_or_else(Default::default, |(a, b)| (a.to_owned(), b.to_owned()));
        let again = |api: &Api| {
            let (api, namespace, name) = (api.clone(), namespace.clone(), name.clone());
            async move { api.metadata(kind, &namespace, &name).await }
        };
        if live.is_none() {
            // The list has only what has our labels.
            live = again(&self.api).await?;
        }
        let mut races = 0;
        loop {
            ours(live.as_ref())?;
            if let Some(live) = &live {
                not_overtaken(live, term).map_err(Trouble::All)?;
                object["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
            }
            match self.api.apply(kind, &object).await {
                Err(ApiError::Conflict(_)) if races < RACES => {
                    races += 1;
                    live = again(&self.api).await?;
                    if live.is_none() {
                        object["metadata"]["resourceVersion"] = Value::Null;
                    }
                }
                done => return Ok(done?),
            }
        }
    }

    /// Deletes what nobody wants any more. What it owns goes with it.
    async fn prune(
        &self,
        live: &BTreeMap<(&str, &str), &Value>,
        wanted: &BTreeSet<(String, String)>,
        told: &mut Told,
    ) -> Result<(), String> {
        for ((namespace, object), one) in live {
            if wanted.contains(&((*namespace).to_owned(), (*object).to_owned())) {
                continue;
            }
            match self.api.delete(Kind::Deployment, one).await {
                Ok(()) => {}
                // It was changed meanwhile: seen anew, and judged anew, the next time.
                Err(error @ ApiError::Away(_)) => return Err(error.to_string()),
                Err(error) => {
                    let group = annotation(one, GROUP).unwrap_or(object);
                    told.waiting.insert(group.into(), format!("cannot be deleted: {error}"));
                }
            }
        }
        Ok(())
    }

    /// Which PriorityClass has which value, when an agent has a priority.
    async fn priorities(&self, wish: &Wish, known: &mut Known, told: &mut Told) {
        let asked: BTreeMap<i64, &str> = wish
            .desired
            .iter()
            .filter(|desired| desired.wanted.group.priority != 0)
            .map(|desired| (i64::from(desired.wanted.group.priority), &*desired.wanted.group.id))
            .collect();
        if asked.is_empty() {
            return;
        }
        if known.classes.as_ref().is_none_or(|(then, _)| then.elapsed() >= RARELY) {
            let mut classes = BTreeMap::new();
            let listed = self.api.list(Kind::PriorityClass, None, "", |class| classes.extend(valued(&class)));
            match listed.await {
                Ok(_) => known.classes = Some((Instant::now(), classes)),
                Err(error) => told.notes.push(format!("priorities are left out: {error}")),
            }
        }
        let Some((_, classes)) = &known.classes else { return };
        for (priority, group) in asked.iter().filter(|(priority, _)| !classes.contains_key(priority)) {
            told.notes.push(format!(
                "{group} has the cluster's default priority: there is no PriorityClass with the value {priority}"
            ));
        }
    }
}

/// A PriorityClass by its value. Kubernetes' own are not for agents.
fn valued(class: &Value) -> Option<(i64, String)> {
    let name = text(class, "/metadata/name").filter(|name| !name.starts_with("system-"))?;
    Some((class["value"].as_i64()?, name.to_owned()))
}

fn off(wanted: &Wanted, duty: &str) -> bool {
    wanted.without.iter().any(|word| word == duty)
}

/// Namespace and name.
fn place(object: &Value) -> Option<(&str, &str)> {
    Some((text(object, "/metadata/namespace")?, text(object, "/metadata/name")?))
}

/// An object without our labels is not touched.
fn ours(live: Option<&Value>) -> Result<(), Trouble> {
    let Some(live) = live else { return Ok(()) };
    let labels = &live["metadata"]["labels"];
    if labels[MANAGED_BY] == "pilotfish" && labels[MESH].is_string() && labels[DEPLOYMENT].is_string() {
        return Ok(());
    }
    let (namespace, name) = place(live).unwrap_or_default();
    Err(Trouble::Group(format!("{namespace}/{name} is in the cluster already, and is not Pilotfish's")))
}

fn owned_by(live: &Value, owner: &Owner) -> bool {
    let owners = live["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| owners.iter().any(|one| one["uid"] == json!(owner.uid)))
}

/// An object of a later leader is not touched.
fn not_overtaken(live: &Value, term: u64) -> Result<(), String> {
    let seen = annotation(live, TERM).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    if seen > term {
        return Err(format!(
            "another control plane leads: the cluster has seen term {seen}, this one has {term}"
        ));
    }
    Ok(())
}

/// A quota or an admission rule that keeps a Deployment from making its pods.
fn cannot_make_pods(deployment: &Value) -> Option<String> {
    let conditions = deployment["status"]["conditions"].as_array()?;
    let failed = |condition: &&Value| condition["type"] == "ReplicaFailure" && condition["status"] == "True";
    conditions
        .iter()
        .find(failed)
        .map(|failed| text(failed, "/message").unwrap_or("pods cannot be made").to_owned())
}
