//! OpenTelemetry's metrics of models and tools, of workers' tables.

use std::borrow::Cow;
use std::time::Duration;

use super::family::{Families, Kind, Label, Sample, Unit};
use super::http::{error_of_call, error_word, place};
use super::requests::merged;
use super::table::{Key, Table, Traced};
use crate::listen::Direction;
use crate::telemetry::agentic::gen_ai::{Operation, PROVIDERS};
use crate::telemetry::call::CallRecord;
use crate::telemetry::series::{Names, Slot, TextSlots};

/// The most that a worker tells apart.
pub(super) const MOST: usize = 256;

/// OpenTelemetry's for `gen_ai.client.token.usage`.
const TOKENS: [u64; 14] =
    [1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864];
/// OpenTelemetry's for durations of models' operations, microseconds.
const OPERATIONS: [u64; 14] = [
    10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 640_000, 1_280_000, 2_560_000, 5_120_000, 10_240_000,
    20_480_000, 40_960_000, 81_920_000,
];
/// OpenTelemetry's for `gen_ai.server.time_to_first_token`, microseconds.
const FIRST_TOKEN: [u64; 16] = [
    1_000, 5_000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000, 250_000, 500_000, 750_000, 1_000_000,
    2_500_000, 5_000_000, 7_500_000, 10_000_000,
];
/// OpenTelemetry's for `mcp.client.operation.duration`, microseconds.
const MCP: [u64; 14] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
];

/// A metric, by its kind of key.
struct Metric {
    otel: &'static str,
    name: &'static str,
    help: &'static str,
    bounds: &'static [u64],
}

const METRICS: [Metric; 7] = [
    Metric {
        otel: "gen_ai.client.token.usage",
        name: "gen_ai_client_token_usage",
        help: "Tokens that models were given and gave, by their own account.",
        bounds: &TOKENS,
    },
    Metric {
        otel: "gen_ai.client.operation.duration",
        name: "gen_ai_client_operation_duration_seconds",
        help: "Seconds that the agent's calls of models took.",
        bounds: &OPERATIONS,
    },
    Metric {
        otel: "gen_ai.client.operation.time_to_first_chunk",
        name: "gen_ai_client_operation_time_to_first_chunk_seconds",
        help: "Seconds until the first bytes of models' streams.",
        bounds: &OPERATIONS,
    },
    Metric {
        otel: "gen_ai.server.request.duration",
        name: "gen_ai_server_request_duration_seconds",
        help: "Seconds that the agent, as a model, took to answer.",
        bounds: &OPERATIONS,
    },
    Metric {
        otel: "gen_ai.server.time_to_first_token",
        name: "gen_ai_server_time_to_first_token_seconds",
        help: "Seconds until the first bytes of the agent's streams, as a model.",
        bounds: &FIRST_TOKEN,
    },
    Metric {
        otel: "mcp.client.operation.duration",
        name: "mcp_client_operation_duration_seconds",
        help: "Seconds that the agent's MCP requests took.",
        bounds: &MCP,
    },
    Metric {
        otel: "mcp.server.operation.duration",
        name: "mcp_server_operation_duration_seconds",
        help: "Seconds that MCP requests to the agent took.",
        bounds: &MCP,
    },
];

const TOKEN_USAGE: u8 = 0;
const MCP_CLIENT: u8 = 5;
const MCP_SERVER: u8 = 6;

/// What metrics are told of a call that is more than HTTP.
#[derive(Debug)]
pub enum Told<'a> {
    /// Nothing.
    Nothing,
    /// A model was asked.
    Model(Box<Model<'a>>),
    /// An MCP request.
    Mcp {
        /// `mcp.method.name`.
        method: &'a str,
        /// The tool's or prompt's name.
        name: Option<&'a str>,
        /// How long it took.
        took: Duration,
    },
}

/// What came of asking a model.
#[derive(Debug)]
pub struct Model<'a> {
    /// What was asked for.
    pub operation: Operation,
    /// Whose API it is, among [`PROVIDERS`].
    pub provider: usize,
    /// The model that was asked for.
    pub asked: Option<&'a str>,
    /// The model that answered.
    pub answered: Option<Box<str>>,
    /// Tokens in.
    pub input: Option<u64>,
    /// Tokens out.
    pub output: Option<u64>,
    /// When a stream began.
    pub first: Option<Duration>,
    /// How long it took.
    pub took: Duration,
}

/// The names that calls bring and that are told; one list of each for the process.
#[derive(Debug, Default)]
pub struct Words {
    models: Names,
    methods: Names,
    /// Of agents that were called.
    pub(super) agents: Names,
    /// Of capabilities that were asked for.
    pub(super) capabilities: Names,
}

/// One worker's memory of them.
#[derive(Debug, Default)]
pub struct KnownWords {
    models: TextSlots,
    methods: TextSlots,
    pub(super) agents: TextSlots,
    pub(super) capabilities: TextSlots,
}

/// Both.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary<'a> {
    /// Of the process.
    pub words: &'a Words,
    /// Of the worker.
    pub known: &'a KnownWords,
}

/// Counts a call.
pub(super) fn ended(
    table: &Table,
    told: &Told<'_>,
    call: &CallRecord,
    cluster: Option<Slot>,
    Vocabulary { words, known }: Vocabulary<'_>,
) {
    let at = pilotfish_filters::clock::Micros(call.started.0.saturating_add(call.stages.ended));
    let span = match call.tried().last() {
        Some(one) if call.direction == Direction::Outbound => one.span,
        _ => call.span,
    };
    let traced = call.sampled.then_some(Traced { trace: call.trace, span, at });
    let error = error_of_call(call.status, call.reason);
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let outbound = call.direction == Direction::Outbound;
    let cluster = if outbound { place(cluster) } else { 0 };
    match told {
        Told::Nothing => {}
        Told::Model(model) => {
            let slot = |name: Option<&str>| place(name.map(|name| known.models.of(&words.models, name)));
            let (asked, answered) = (slot(model.asked), slot(model.answered.as_deref()));
            let count = |kind: u8, token: u64, error: u64, value| {
                let status = if error == 0 { 0 } else { u64::from(call.status) };
                let key = Key::of(kind)
                    .with(3, model.operation as u64)
                    .with(5, model.provider as u64)
                    .with(9, asked)
                    .with(9, answered)
                    .with(1, token)
                    .with(7, error)
                    .with(10, status)
                    .with(9, cluster);
                table.record(key, Key::of(kind), METRICS[usize::from(kind)].bounds, value, traced);
            };
            let (duration, first) = if outbound { (1, 2) } else { (3, 4) };
            count(duration, 0, error, micros(model.took));
            if let Some(took) = model.first {
                count(first, 0, 0, micros(took));
            }
            for (token, tokens) in [(0, model.input), (1, model.output)] {
                if let Some(tokens) = tokens.filter(|_| outbound) {
                    count(TOKEN_USAGE, token, 0, tokens);
                }
            }
        }
        Told::Mcp { method, name, took } => {
            let slot = |name: &str| known.methods.of(&words.methods, name);
            let kind = if outbound { MCP_CLIENT } else { MCP_SERVER };
            let status = if error == 0 { 0 } else { u64::from(call.status) };
            let key = Key::of(kind)
                .with(8, 0)
                .with(9, place(Some(slot(method))))
                .with(9, place(name.map(slot)))
                .with(1, u64::from(*method == "prompts/get"))
                .with(7, error)
                .with(10, status)
                .with(9, cluster);
            table.record(key, Key::of(kind), METRICS[usize::from(kind)].bounds, micros(*took), traced);
        }
    }
}

/// Names by slot.
struct Naming {
    models: Vec<Box<str>>,
    methods: Vec<Box<str>>,
    clusters: Vec<Box<str>>,
}

fn named(names: &[Box<str>], place: u64) -> Option<Cow<'static, str>> {
    let slot = usize::try_from(place).ok()?.checked_sub(1)?;
    Some(names.get(slot).map_or("other", |name| &**name).to_owned().into())
}

/// Which metric, and its labels.
fn labels(mut key: Key, shared: bool, names: &Naming) -> (usize, Vec<Label>) {
    if shared {
        return (key.take(4) as usize, vec![("otel.metric.overflow", "true".into())]);
    }
    let (cluster, status, error, bit) = (key.take(9), key.take(10), key.take(7), key.take(1));
    let (second, first) = (key.take(9), key.take(9));
    let mut labels = Vec::with_capacity(8);
    let mut tell = |name, value: Option<Cow<'static, str>>| labels.extend(value.map(|value| (name, value)));
    let (provider, operation) = (key.take(5) as usize, key.take(3) as usize);
    let kind = key.take(4) as usize;
    if kind >= usize::from(MCP_CLIENT) {
        tell("mcp.method.name", named(&names.methods, first));
        let named_by = if bit == 1 { "gen_ai.prompt.name" } else { "gen_ai.tool.name" };
        tell(named_by, named(&names.methods, second));
    } else {
        let operation = Operation::ALL.get(operation).map(|operation| operation.word().into());
        tell("gen_ai.operation.name", operation);
        tell("gen_ai.provider.name", PROVIDERS.get(provider).map(|(name, _)| Cow::Borrowed(*name)));
        tell("gen_ai.request.model", named(&names.models, first));
        tell("gen_ai.response.model", named(&names.models, second));
        if kind == usize::from(TOKEN_USAGE) {
            tell("gen_ai.token.type", Some(if bit == 1 { "output" } else { "input" }.into()));
        }
    }
    tell("error.type", error_word(error, status as u16));
    tell("server.address", named(&names.clusters, cluster));
    (kind, labels)
}

pub(super) fn collect<'t>(
    page: &mut Families,
    tables: impl Iterator<Item = &'t Table>,
    words: &Words,
    clusters: &Names,
    since: Duration,
) {
    let names =
        Naming { models: words.models.list(), methods: words.methods.list(), clusters: clusters.list() };
    let mut samples: [Vec<Sample>; METRICS.len()] = Default::default();
    for ((shared, key), mut values) in merged(tables, since) {
        let (kind, labels) = labels(key, shared, &names);
        let Some(of_kind) = samples.get_mut(kind) else { continue };
        values.unit = if kind == usize::from(TOKEN_USAGE) { Unit::Whole } else { Unit::Micros };
        of_kind.push(Sample { labels, value: values.into() });
    }
    for (metric, samples) in METRICS.iter().zip(samples) {
        page.standard(metric.otel, metric.name, Kind::Histogram, metric.help);
        samples.into_iter().for_each(|Sample { labels, value }| page.sample(labels, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{Format, render};

    #[test]
    fn models_and_tools_are_told_with_their_labels() {
        let (table, words, known) = (Table::new(MOST), Words::default(), KnownWords::default());
        let clusters = Names::default();
        let names = Vocabulary { words: &words, known: &known };
        let took = Duration::from_millis(30);
        // Every provider: no number of one is mistaken for something else.
        for provider in 0..PROVIDERS.len() {
            let model = Model {
                operation: Operation::Chat,
                provider,
                asked: Some("m"),
                answered: Some("m-1".into()),
                input: Some(5),
                output: Some(70),
                first: Some(took),
                took,
            };
            let call = CallRecord { status: 200, ..CallRecord::default() };
            ended(&table, &Told::Model(Box::new(model)), &call, Some(clusters.slot("llm:80")), names);
        }
        let inbound = CallRecord { status: 503, direction: Direction::Inbound, ..CallRecord::default() };
        let told = Told::Mcp { method: "tools/call", name: Some("search"), took };
        ended(&table, &told, &inbound, None, names);
        let mut page = Families::default();
        collect(&mut page, [&table].into_iter(), &words, &clusters, Duration::ZERO);
        let text = render(&page.take(), Format::Text);
        let sums: Vec<&str> = text.lines().filter(|line| line.contains("_sum{")).collect();
        assert_eq!(sums.len(), 4 * PROVIDERS.len() + 1, "{text}");
        let model = "gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\",gen_ai_request_model=\"m\",\
                     gen_ai_response_model=\"m-1\"";
        for wanted in [
            format!("gen_ai_client_token_usage_sum{{{model},gen_ai_token_type=\"input\",server_address=\"llm:80\"}} 5"),
            format!("gen_ai_client_token_usage_sum{{{model},gen_ai_token_type=\"output\",server_address=\"llm:80\"}} 70"),
            format!("gen_ai_client_operation_duration_seconds_sum{{{model},server_address=\"llm:80\"}} 0.03"),
            format!("gen_ai_client_operation_time_to_first_chunk_seconds_sum{{{model},server_address=\"llm:80\"}} 0.03"),
            "mcp_server_operation_duration_seconds_sum{mcp_method_name=\"tools/call\",gen_ai_tool_name=\"search\",\
             error_type=\"503\"} 0.03"
                .to_owned(),
        ] {
            assert!(sums.contains(&&*wanted), "{wanted} is not in\n{}", sums.join("\n"));
        }
        assert!(text.contains("token_type=\"output\",server_address=\"llm:80\",le=\"64\"} 0\n"), "{text}");
    }
}
