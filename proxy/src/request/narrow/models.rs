//! Models: lists of them, and what there is to know of one. A model that the caller may not use is as unknown to it as one that there
//! is not.

use std::borrow::Cow;

use pilotfish_filters::authz::{Judgement, Who};
use pilotfish_filters::binding::{self, Path, Said};
use pilotfish_filters::call::{Call, Protocol, Understood};
use pilotfish_filters::plan::Plan;
use pilotfish_filters::verdict::{Deny, Foreign, Reason};
use serde_json::json;

use super::cut::{Json, Place, With};
use super::{Bad, Cuts, List, Narrow, name};
use crate::http::RequestHead;
use crate::request::admit::Asked;
use crate::request::ctx::Ctx;

/// Where models are called, behind the beginning of an API.
const CALLS: [&str; 7] = [
    "/chat/completions",
    "/responses",
    "/completions",
    "/messages",
    "/embeddings",
    "/audio/speech",
    "/images/generations",
];

/// By what an entry of a list says which model it is.
const NAMES: [&str; 3] = ["id", "name", "model"];

/// A call about one model that was allowed is answered as if there were no such model when its caller may not use it.
pub fn one<'p>(
    ctx: &Ctx<'_>,
    plan: &Plan,
    asked: &Asked<'_>,
    who: &Who<'_>,
    judgement: Judgement<'p>,
) -> Judgement<'p> {
    if judgement.deny.is_some() || !plan.authz_reads_body() {
        return judgement;
    }
    let Path::Said(Said::OneModel(model)) = binding::read(asked.head.method.as_str(), asked.head.path())
    else {
        return judgement;
    };
    let narrow = Narrow::new(List::Models, asked, who);
    match narrow.no_call(ctx, &model) {
        Some(by) => Judgement { deny: Some(unknown(asked.head, &model)), by: by.into(), ..judgement },
        None => judgement,
    }
}

/// As the API that is asked says it.
fn unknown(head: &RequestHead, model: &str) -> Deny {
    let is_google = head.headers.contains("x-goog-api-key") || head.path().starts_with("/v1beta");
    let body = if head.headers.contains("anthropic-version") {
        json!({"type": "error", "error": {"type": "not_found_error", "message": format!("model: {model}")}})
    } else if is_google {
        let message = format!("Model is not found: models/{model}");
        json!({"error": {"code": 404, "message": message, "status": "NOT_FOUND"}})
    } else {
        let message = format!("The model '{model}' does not exist");
        json!({"error": {"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}})
    };
    let answer = Foreign {
        status: 404,
        headers: vec![("content-type".into(), Box::from(&b"application/json"[..]))],
        body: body.to_string().into_bytes().into(),
        quiet: true,
    };
    let detail = format!("the caller may not use the model {model}, and so does not learn of it");
    Deny::with(Reason::AccessDenied, detail).answered(answer)
}

impl Narrow {
    /// A list of models in the shapes of OpenAI, Anthropic, Gemini and Ollama.
    pub(super) fn models(
        &self,
        ctx: &Ctx<'_>,
        json: &Json<'_>,
        whole: &Place,
    ) -> Result<Option<Vec<u8>>, Bad> {
        let array = match json.member(whole, "data")? {
            None => json.member(whole, "models")?.unwrap_or(whole.clone()),
            Some(data) => data,
        };
        let mut cuts = Cuts::default();
        cuts.cut(json, &array, &NAMES, |model| self.no_call(ctx, model).is_none())?;
        // Anthropic's pages name their ends.
        let kept = match cuts.places.first() {
            Some((_, With::Elements(kept))) => kept.clone(),
            _ => Vec::new(),
        };
        for (member, end) in [("first_id", kept.first()), ("last_id", kept.last())] {
            let Some(place) = json.member(whole, member)? else { continue };
            let id = end.map(|end| name(json, end, &NAMES)).transpose()?.flatten();
            cuts.places.push((place, id.map_or(With::Null, With::Copy)));
        }
        Ok(cuts.done(json))
    }

    /// The policy that refuses every call of a model.
    fn no_call(&self, ctx: &Ctx<'_>, model: &str) -> Option<String> {
        // Gemini: `models/NAME`, Vertex: `publishers/P/models/NAME`.
        let model = model.rsplit_once("models/").map_or(model, |(_, name)| name);
        let call = Call {
            protocol: Protocol::OpenAi,
            model: Some(model.into()),
            body: Understood::Whole,
            ..Call::default()
        };
        let base = base(self.head.path());
        let own = [
            format!("{base}/models/{model}:generateContent"),
            format!("{base}/deployments/{model}/chat/completions"),
            "/api/chat".to_owned(),
        ];
        let mut paths =
            CALLS.iter().map(|path| Cow::Owned(format!("{base}{path}"))).chain(own.iter().map(Cow::from));
        let mut first = None;
        paths
            .all(|path| match self.refused(ctx, &call, &path) {
                Some(by) => {
                    first.get_or_insert(by);
                    true
                }
                None => false,
            })
            .then_some(first)
            .flatten()
    }
}

/// What is before `models`, `engines`, `deployments` or the like.
fn base(path: &str) -> &str {
    let mut base = path.trim_end_matches('/');
    for (at, _) in path.match_indices('/') {
        let word = path[at + 1..].split('/').next().unwrap_or_default();
        if ["models", "engines", "deployments", "tags", "ps"].iter().any(|own| own.eq_ignore_ascii_case(word))
        {
            return &path[..at];
        }
        base = &path[..at];
    }
    base
}
