//! Calls of models: which operation of whose API is asked for, and what came of it.

use std::time::Duration;

use http::Method;
use pilotfish_filters::call::Call;

use super::listen::Listening;
use super::usage::Usage;
use crate::http::RequestHead;
use crate::telemetry::call::{CallRecord, Value};
use crate::telemetry::metrics::agentic::{Model, Told};

/// The longest model's name that is told, bytes.
const LONGEST: usize = 128;

/// `gen_ai.operation.name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `chat`
    Chat,
    /// `text_completion`
    TextCompletion,
    /// `embeddings`
    Embeddings,
    /// `generate_content`
    GenerateContent,
}

impl Operation {
    /// Each by its number.
    pub const ALL: [Operation; 4] =
        [Operation::Chat, Operation::TextCompletion, Operation::Embeddings, Operation::GenerateContent];

    /// The attribute's value.
    pub const fn word(self) -> &'static str {
        match self {
            Operation::Chat => "chat",
            Operation::TextCompletion => "text_completion",
            Operation::Embeddings => "embeddings",
            Operation::GenerateContent => "generate_content",
        }
    }
}

/// `gen_ai.provider.name`, and the hosts by which they are known (their ends, without the port).
pub const PROVIDERS: [(&str, &str); 16] = [
    ("openai", "api.openai.com"),
    ("anthropic", "api.anthropic.com"),
    ("azure.ai.openai", ".openai.azure.com"),
    ("azure.ai.inference", ".models.ai.azure.com"),
    ("gcp.gemini", "generativelanguage.googleapis.com"),
    ("gcp.vertex_ai", "aiplatform.googleapis.com"),
    ("aws.bedrock", ".amazonaws.com"),
    ("cohere", "api.cohere.com"),
    ("deepseek", "api.deepseek.com"),
    ("groq", "api.groq.com"),
    ("ibm.watsonx.ai", ".ml.cloud.ibm.com"),
    ("mistral_ai", "api.mistral.ai"),
    ("moonshot_ai", "api.moonshot.ai"),
    ("perplexity", "api.perplexity.ai"),
    ("x_ai", "api.x.ai"),
    // Not among OpenTelemetry's, which allows others.
    ("ollama", "ollama"),
];

const OPENAI: usize = 0;
const ANTHROPIC: usize = 1;
const GEMINI: usize = 4;
const OLLAMA: usize = 15;

/// What is asked of a model.
#[derive(Debug)]
pub struct Asked {
    operation: Operation,
    /// Among [`PROVIDERS`].
    provider: usize,
    model: Option<Box<str>>,
}

impl Asked {
    /// `None`: no model is asked.
    pub(super) fn of(head: &RequestHead, call: &Call) -> Option<Asked> {
        if head.method != Method::POST {
            return None;
        }
        let (operation, provider, named) = known(head.path())?;
        let host = head.authority();
        let host =
            host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(h, _)| h);
        let by_host = PROVIDERS.iter().position(|(_, end)| host.ends_with(end));
        let fits = |name: &&str| {
            !name.is_empty() && name.len() <= LONGEST && name.bytes().all(|b| b.is_ascii_graphic())
        };
        let model = call.model.as_deref().or(named).filter(fits).map(Box::from);
        Some(Asked { operation, provider: by_host.unwrap_or(provider), model })
    }

    pub(super) fn finish(
        &self,
        heard: Option<&Listening>,
        record: &mut CallRecord,
        took: Duration,
    ) -> Told<'_> {
        let mut usage = heard.map(Listening::learn).unwrap_or_default();
        self.complete(&mut usage);
        let first = heard.and_then(Listening::first).map(|at| at.since(record.started));
        let first = first.filter(|_| heard.is_some_and(Listening::is_stream));
        if record.sampled {
            self.tell(&usage, first, record);
        }
        Told::Model(Box::new(Model {
            operation: self.operation,
            provider: self.provider,
            asked: self.model.as_deref(),
            answered: usage.model,
            input: usage.input,
            output: usage.output,
            first,
            took,
        }))
    }

    /// OpenTelemetry counts all tokens in and all tokens out; these two count some beside the others.
    fn complete(&self, usage: &mut Usage) {
        if self.provider == ANTHROPIC || usage.cache_creation.is_some() {
            let beside = usage.cached.unwrap_or(0) + usage.cache_creation.unwrap_or(0);
            usage.input = usage.input.map(|input| input + beside);
        }
        if self.operation == Operation::GenerateContent {
            usage.output = usage.output.map(|output| output + usage.reasoning.unwrap_or(0));
        }
    }

    fn tell(&self, usage: &Usage, first: Option<Duration>, record: &mut CallRecord) {
        let attributes = &mut record.extra().attributes;
        let provider = PROVIDERS[self.provider].0;
        attributes.push(("gen_ai.operation.name", Value::Text(self.operation.word().into())));
        attributes.push(("gen_ai.provider.name", Value::Text(provider.into())));
        let texts = [
            ("gen_ai.request.model", &self.model),
            ("gen_ai.response.model", &usage.model),
            ("gen_ai.response.id", &usage.id),
        ];
        let known = texts.into_iter().filter_map(|(name, text)| Some((name, Value::Text(text.clone()?))));
        attributes.extend(known);
        if !usage.finish_reasons.is_empty() {
            attributes.push(("gen_ai.response.finish_reasons", Value::List(usage.finish_reasons.clone())));
        }
        let counts = [
            ("gen_ai.usage.input_tokens", usage.input),
            ("gen_ai.usage.output_tokens", usage.output),
            ("gen_ai.usage.cache_read.input_tokens", usage.cached),
            ("gen_ai.usage.cache_creation.input_tokens", usage.cache_creation),
            ("gen_ai.usage.reasoning.output_tokens", usage.reasoning),
        ];
        let known = counts
            .into_iter()
            .filter_map(|(name, count)| Some((name, Value::Number(i64::try_from(count?).ok()?))));
        attributes.extend(known);
        if let Some(first) = first {
            let seconds = Value::Float(first.as_secs_f64());
            attributes.push(("gen_ai.response.time_to_first_chunk", seconds));
        }
    }
}

/// The operation that a path is for, whose API it is as long as the host does not say better, and the model that it names.
fn known(path: &str) -> Option<(Operation, usize, Option<&str>)> {
    // A base path may come before, as gateways and Azure have it.
    let has = |end: &str| path.ends_with(end);
    Some(match path.as_bytes().last()? {
        b's' if has("/chat/completions") => (Operation::Chat, OPENAI, None),
        b's' if has("/v1/completions") => (Operation::TextCompletion, OPENAI, None),
        b's' if has("/v1/embeddings") => (Operation::Embeddings, OPENAI, None),
        b's' if has("/v1/responses") => (Operation::Chat, OPENAI, None),
        b's' if has("/v1/messages") => (Operation::Chat, ANTHROPIC, None),
        b't' if path == "/api/chat" => (Operation::Chat, OLLAMA, None),
        b't' if has(":generateContent") || has(":streamGenerateContent") => {
            let model = path.rsplit('/').next()?.split(':').next();
            (Operation::GenerateContent, GEMINI, model)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use pilotfish_filters::call::Protocol;

    use super::super::{Agentic, asked};
    use super::*;
    use crate::clock::Clock;
    use crate::http::{ResponseHead, Watch};

    fn call(host: &str, path: &str) -> Option<Box<Agentic>> {
        asked(&RequestHead::new(Method::POST, host, path), &Call::default())
    }

    fn heard(host: &str, path: &str, kind: &str, body: &[u8]) -> Vec<String> {
        let mut agentic = call(host, path).unwrap();
        let head = ResponseHead::new(StatusCode::OK).with("content-type", kind);
        agentic.answered(&head, Clock::start()).unwrap().data(body);
        let mut record = CallRecord { sampled: true, ..CallRecord::default() };
        agentic.finish(&mut record);
        let told = |(name, value): &(&str, Value)| match value {
            Value::Text(text) => format!("{} {text}", &name[7..]),
            Value::Number(number) => format!("{} {number}", &name[7..]),
            Value::Float(_) => name[7..].to_owned(),
            Value::List(all) => format!("{} {}", &name[7..], all.join(",")),
        };
        record.extra().attributes.iter().map(told).collect()
    }

    #[test]
    fn a_path_says_which_operation_and_a_host_whose() {
        for (host, path, wanted) in [
            ("llm.test", "/v1/chat/completions", Some("chat openai")),
            ("api.groq.com", "/openai/v1/chat/completions", Some("chat groq")),
            (
                "x.openai.azure.com:443",
                "/openai/deployments/d/chat/completions",
                Some("chat azure.ai.openai"),
            ),
            ("llm.test", "/v1/completions", Some("text_completion openai")),
            ("llm.test", "/v1/embeddings", Some("embeddings openai")),
            ("llm.test", "/v1/responses", Some("chat openai")),
            ("api.anthropic.com", "/v1/messages", Some("chat anthropic")),
            ("localhost:11434", "/api/chat", Some("chat ollama")),
            ("g.test", "/v1beta/models/gemini-x:generateContent", Some("generate_content gcp.gemini")),
            ("llm.test", "/v1/models", None),
            ("llm.test", "/", None),
            ("shop.test", "/chats", None),
        ] {
            let is = call(host, path).map(|agentic| match agentic.is {
                super::super::Is::Model(asked) => {
                    format!("{} {}", asked.operation.word(), PROVIDERS[asked.provider].0)
                }
                other => panic!("{other:?}"),
            });
            assert_eq!(is.as_deref(), wanted, "{host}{path}");
        }
        let get = RequestHead::new(Method::GET, "llm.test", "/v1/responses");
        assert!(asked(&get, &Call { protocol: Protocol::OpenAi, ..Call::default() }).is_none());
    }

    #[tokio::test]
    async fn attributes_of_each_api() {
        let openai = br#"{"id":"c","model":"m-1","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
        assert_eq!(
            heard("llm.test", "/v1/chat/completions", "application/json", openai),
            [
                "operation.name chat",
                "provider.name openai",
                "response.model m-1",
                "response.id c",
                "response.finish_reasons stop",
                "usage.input_tokens 3",
                "usage.output_tokens 4",
            ]
        );
        let anthropic = br#"{"usage":{"input_tokens":3,"cache_read_input_tokens":10,"cache_creation_input_tokens":20,"output_tokens":4}}"#;
        let told = heard("llm.test", "/v1/messages", "application/json", anthropic);
        assert!(told.contains(&"usage.input_tokens 33".to_owned()), "{told:?}");
        let gemini = b"data: {\"usageMetadata\":{\"promptTokenCount\":1,\"candidatesTokenCount\":2,\"thoughtsTokenCount\":4}}\n\n";
        let told = heard("g.test", "/v1/models/gem:streamGenerateContent", "text/event-stream", gemini);
        assert_eq!(
            told[2..],
            [
                "request.model gem",
                "usage.input_tokens 1",
                "usage.output_tokens 6",
                "usage.reasoning.output_tokens 4",
                "response.time_to_first_chunk"
            ]
        );
    }
}
