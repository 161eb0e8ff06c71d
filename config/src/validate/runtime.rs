//! How an agent is started and what it needs: AgentTemplate, and the same fields of an AgentCluster's agents.

use std::time::Duration;

use crate::model::{AgentTemplate, Meta, Resources, Runtime, StringMap};
use crate::quantity::{self, NotAQuantity};
use crate::raw::{AgentSpec, AgentTemplateSpec, CommandSpec, Quantity, ResourcesSpec, Text, TextMap, Time};
use crate::yaml::clip_text;

use super::annotations::Wrong;
use super::check::Cx;

/// Words of a command, at most, and bytes of all of them: well below what Linux takes (`ARG_MAX`).
const MOST_WORDS: usize = 1000;
const LONGEST_COMMAND: usize = 64 << 10;
/// Variables of an agent's environment, at most, and bytes of each value.
const MOST_VARIABLES: usize = 200;
const LONGEST_VALUE: usize = 32 << 10;
/// A million cores; a pebibyte; more cards than any machine has. So that sums over a fleet fit 64 bits.
const MOST_MILLI: u64 = 1_000_000_000;
const MOST_BYTES: u64 = 1 << 50;
const MOST_CARDS: u64 = 1024;
/// Less memory than this is a mistake in the unit.
const LITTLE: u64 = 1 << 20;
const HOUR: Duration = Duration::from_secs(3600);
/// What placement or the supervisor sets.
const TAKEN: [&str; 3] = ["PORT", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"];
/// What a shell would do something with.
const OPERATORS: [&str; 9] = ["|", "||", "&", "&&", ";", ">", ">>", "<", "2>&1"];

/// Reads an AgentTemplate.
pub(super) fn agent_template(cx: &mut Cx<'_>, meta: Meta, spec: &AgentTemplateSpec<'_>) -> AgentTemplate {
    let fields = Fields {
        image: spec.image,
        command: spec.command.as_ref(),
        env: spec.env.as_ref(),
        working_dir: spec.working_dir,
        probe: spec.probe,
        start_timeout: spec.start_timeout,
        stop_timeout: spec.stop_timeout,
    };
    AgentTemplate { meta, runtime: fields.runtime(cx), resources: resources(cx, spec.resources.as_ref()) }
}

/// Reads how an agent is started.
pub(super) fn of_agent(cx: &mut Cx<'_>, spec: &AgentSpec<'_>) -> Runtime {
    let fields = Fields {
        image: spec.image,
        command: spec.command.as_ref(),
        env: spec.env.as_ref(),
        working_dir: spec.working_dir,
        probe: spec.probe,
        start_timeout: spec.start_timeout,
        stop_timeout: spec.stop_timeout,
    };
    fields.runtime(cx)
}

/// What both kinds say in the same words.
struct Fields<'s, 'n> {
    image: Option<Text<'n>>,
    command: Option<&'s CommandSpec<'n>>,
    env: Option<&'s TextMap<'n>>,
    working_dir: Option<Text<'n>>,
    probe: Option<Text<'n>>,
    start_timeout: Option<Time<'n>>,
    stop_timeout: Option<Time<'n>>,
}

impl Fields<'_, '_> {
    fn runtime(self, cx: &mut Cx<'_>) -> Runtime {
        Runtime {
            command: self.command.map_or(Vec::new(), |command| self::command(cx, command)),
            image: self.image.map(|image| self::image(cx, image)),
            env: env(cx, self.env),
            working_dir: self.working_dir.map(|folder| {
                if !folder.value.starts_with('/') || folder.value.contains('\0') {
                    let message = format!("`{}` is not an absolute path", clip_text(folder.value));
                    cx.error_hint(
                        folder.node,
                        message,
                        "such as /srv/agents/chat; it has to be there on every node",
                    );
                }
                folder.value.to_owned()
            }),
            probe: self.probe.map(|probe| self::probe(cx, probe)),
            start_timeout: self.start_timeout.map(|time| timeout(cx, time, Duration::from_secs(1))),
            stop_timeout: self.stop_timeout.map(|time| timeout(cx, time, Duration::ZERO)),
        }
    }
}

fn command(cx: &mut Cx<'_>, spec: &CommandSpec<'_>) -> Vec<String> {
    let words = match &spec.words {
        Ok(words) => words.iter().map(|word| word.value.to_owned()).collect(),
        Err(text) => match split(text.value) {
            Ok(words) => {
                let operator = OPERATORS.iter().find(|operator| words.iter().any(|word| word == *operator));
                if let Some(operator) = operator {
                    let message = format!("`{operator}` is passed to the program: no shell runs the command");
                    cx.warn(text.node, message, "for a shell write [sh, -c, \"...\"]");
                }
                words
            }
            Err(Wrong { what, hint }) => {
                cx.error_hint(text.node, format!("`{}` {what}", clip_text(text.value)), hint);
                return Vec::new();
            }
        },
    };
    if let Err(Wrong { what, hint }) = fits(&words) {
        cx.error_hint(spec.node, format!("the command {what}"), hint);
    }
    words
}

/// A command as an annotation has it.
pub(super) fn command_text(text: &str) -> Result<Vec<String>, Wrong> {
    let words = split(text)?;
    fits(&words)?;
    Ok(words)
}

fn fits(words: &[String]) -> Result<(), Wrong> {
    if words.first().is_none_or(String::is_empty) {
        return Err(Wrong::new("names no program", "such as [python3, agent.py]"));
    }
    if words.len() > MOST_WORDS || words.iter().map(String::len).sum::<usize>() > LONGEST_COMMAND {
        let most = format!("at most {MOST_WORDS} words, {} KiB together", LONGEST_COMMAND >> 10);
        return Err(Wrong::new("is too long", most));
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err(Wrong::new("has a zero byte", "no program can be given one"));
    }
    Ok(())
}

/// Splits a text as a POSIX shell splits words (quotes, backslashes), and expands nothing.
fn split(text: &str) -> Result<Vec<String>, Wrong> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (_, Some('\'')) => word.get_or_insert_default().push(c),
            ('\\', Some(_)) => {
                // Within double quotes a backslash is one, unless it makes the next character plain.
                match chars.next_if(|next| matches!(next, '"' | '\\' | '$' | '`' | '\n')) {
                    Some('\n') => {}
                    Some(next) => word.get_or_insert_default().push(next),
                    None => word.get_or_insert_default().push('\\'),
                }
            }
            (_, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            ('\\', None) => match chars.next() {
                Some('\n') => {}
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err(Wrong::new("ends with a backslash", "write a character after it")),
            },
            (' ' | '\t' | '\n' | '\r', None) => words.extend(word.take()),
            (_, None) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(Wrong::new(
            format!("opens a quote that it does not close: {open}"),
            "close it, or write a list",
        ));
    }
    words.extend(word);
    Ok(words)
}

fn image(cx: &mut Cx<'_>, image: Text<'_>) -> String {
    let good =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/' | b':' | b'@');
    if image.value.is_empty() || image.value.len() > 512 || !image.value.bytes().all(good) {
        let message = format!("`{}` is not an image", clip_text(image.value));
        cx.error_hint(image.node, message, "such as registry.example.com/agents/chat:1.4");
    }
    image.value.to_owned()
}

fn env(cx: &mut Cx<'_>, map: Option<&TextMap<'_>>) -> StringMap {
    let mut env = StringMap::new();
    for (key, value) in map.into_iter().flatten() {
        let name = key.value;
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let digit = name.bytes().next().is_some_and(|first| first.is_ascii_digit());
        if name.is_empty() || name.len() > 256 || digit || !name.bytes().all(good) {
            let message = format!("`{}` is not the name of a variable", clip_text(name));
            cx.diagnose.error_at_key(
                key.node,
                message,
                Some("letters, digits and `_`, no digit first".into()),
            );
        } else if TAKEN.contains(&name) || name.starts_with("PILOTFISH_") {
            let hint = "placement and the sidecar set it for each replica".to_owned();
            cx.diagnose.error_at_key(key.node, format!("`{}` is taken", clip_text(name)), Some(hint));
        }
        // The value may be a secret: it is not repeated.
        if value.value.len() > LONGEST_VALUE || value.value.contains('\0') {
            cx.error(
                value.node,
                format!("the value has a zero byte, or more than {} KiB", LONGEST_VALUE >> 10),
            );
        }
        env.insert(name.to_owned(), value.value.to_owned());
    }
    if let Some((key, _)) = map.and_then(|map| map.get(MOST_VARIABLES)) {
        cx.error(key.node, format!("more than {MOST_VARIABLES} variables"));
    }
    env
}

/// What a sidecar's `--probe` takes.
fn probe(cx: &mut Cx<'_>, text: Text<'_>) -> String {
    let (kind, rest) =
        text.value.split_once(':').map_or((text.value, None), |(kind, rest)| (kind, Some(rest)));
    let clean = |rest: &str| !rest.bytes().any(|byte| byte.is_ascii_control() || byte == b' ');
    let good = match (kind, rest) {
        ("http", Some(path)) => path.starts_with('/') && clean(path),
        ("grpc", service) => clean(service.unwrap_or_default()),
        ("exec", Some(command)) => !command.trim().is_empty() && !command.contains('\0'),
        (kind, rest) => kind == "tcp" && rest.is_none(),
    };
    if !good {
        let message = format!("`{}` is not a probe", clip_text(text.value));
        cx.error_hint(text.node, message, "http:/PATH, grpc, grpc:SERVICE, tcp or exec:COMMAND");
    }
    text.value.to_owned()
}

fn timeout(cx: &mut Cx<'_>, time: Time<'_>, least: Duration) -> Duration {
    super::placement::in_range(cx, time, least, HOUR)
}

/// Reads what is needed.
pub(super) fn resources(cx: &mut Cx<'_>, spec: Option<&ResourcesSpec<'_>>) -> Resources {
    let Some(spec) = spec else { return Resources::default() };
    let resources = Resources {
        cpu_milli: spec.cpu.and_then(|cpu| amount(cx, cpu, quantity::milli, MOST_MILLI)),
        memory: spec.memory.and_then(|memory| bytes(cx, memory)),
        gpu: spec.gpu.and_then(|gpu| cards(cx, gpu)),
        gpu_memory: spec.gpu_memory.and_then(|memory| bytes(cx, memory)),
        gpu_slice: spec.gpu_slice.map(|slice| profile(cx, slice)),
    };
    if let Some(slice) = spec.gpu_slice {
        let other = match (resources.gpu.unwrap_or(0) > 0, spec.gpu_memory.is_some()) {
            (true, _) => Some("gpu"),
            (_, true) => Some("gpuMemory"),
            _ => None,
        };
        if let Some(other) = other {
            let message = format!("`{other}` and `gpuSlice` exclude each other");
            cx.error_hint(
                slice.node,
                message,
                "a slice is a part of one card, with the memory of its profile",
            );
        }
    }
    resources
}

/// Bytes; very few are a mistake in the unit.
pub(super) fn bytes(cx: &mut Cx<'_>, quantity: Quantity<'_>) -> Option<u64> {
    let bytes = amount(cx, quantity, quantity::whole, MOST_BYTES)?;
    if bytes > 0 && bytes < LITTLE {
        let text = quantity.0;
        let unit = if bytes == 1 { "byte" } else { "bytes" };
        let message = format!("`{}` is {bytes} {unit}", clip_text(text.value));
        cx.warn(text.node, message, "is another unit meant: Mi, Gi? `m` is a thousandth");
    }
    Some(bytes)
}

/// Cores in thousandths.
pub(super) fn cores(cx: &mut Cx<'_>, quantity: Quantity<'_>) -> Option<u64> {
    amount(cx, quantity, quantity::milli, MOST_MILLI)
}

fn amount(
    cx: &mut Cx<'_>,
    quantity: Quantity<'_>,
    read: fn(&str) -> Result<u64, NotAQuantity>,
    most: u64,
) -> Option<u64> {
    let text = quantity.0;
    let number = read(text.value).and_then(|number| match number > most {
        true => Err(NotAQuantity::TooLarge),
        false => Ok(number),
    });
    match number {
        Ok(number) => Some(number),
        Err(why) => {
            let message = format!("`{}` is not a quantity", clip_text(text.value));
            cx.error_hint(text.node, message, why.to_string());
            None
        }
    }
}

fn cards(cx: &mut Cx<'_>, quantity: Quantity<'_>) -> Option<u32> {
    let milli = amount(cx, quantity, quantity::milli, MOST_CARDS * 1000)?;
    if !milli.is_multiple_of(1000) {
        let text = quantity.0;
        let message = format!("`{}` is not a whole number of cards", clip_text(text.value));
        cx.error_hint(
            text.node,
            message,
            "for a part of a card write `gpuMemory: 20Gi` or `gpuSlice: 1g.10gb`",
        );
        return None;
    }
    u32::try_from(milli / 1000).ok()
}

/// A MIG profile.
pub(super) fn profile(cx: &mut Cx<'_>, text: Text<'_>) -> String {
    if profile_memory(text.value).is_none() {
        let message = format!("`{}` is not a MIG profile", clip_text(text.value));
        cx.error_hint(text.node, message, "such as 1g.10gb, as `nvidia-smi mig -lgip` lists them");
    }
    text.value.to_owned()
}

/// Bytes that a profile says: `1g.10gb`, `1g.10gb+me`, `1c.2g.20gb`.
pub(super) fn profile_memory(profile: &str) -> Option<u64> {
    let plain = profile.split('+').next().unwrap_or_default();
    let (slices, memory) = plain.strip_suffix("gb")?.rsplit_once('.')?;
    let part = |text: &str| {
        text.strip_suffix(['g', 'c']).is_some_and(|number| matches!(number.parse::<u8>(), Ok(1..=8)))
    };
    if profile.len() > 32 || !slices.split('.').all(part) {
        return None;
    }
    let memory = memory.parse::<u64>().ok().filter(|memory| (1..=1024).contains(memory))?;
    Some(memory << 30)
}

#[cfg(test)]
mod tests {
    use super::{profile_memory, split};

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        for (text, words) in [
            ("python3 agent.py", &["python3", "agent.py"][..]),
            ("  a\t b\n c ", &["a", "b", "c"]),
            ("a 'b c' \"d e\"f", &["a", "b c", "d ef"]),
            (r#"a\ b "c\"d\$e\f" 'g\h'"#, &["a b", "c\"d$e\\f", "g\\h"]),
            ("a '' \"\"", &["a", "", ""]),
            ("a $HOME ~ * `x`", &["a", "$HOME", "~", "*", "`x`"]),
            ("a \\\n b", &["a", "b"]),
            ("", &[]),
        ] {
            assert_eq!(
                split(text).ok().as_deref(),
                Some(words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>().as_slice()),
                "{text}"
            );
        }
        for bad in ["a 'b", "a \"b", "a \\"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn profiles_say_their_memory() {
        for (text, gibibytes) in [("1g.10gb", 10), ("7g.80gb", 80), ("1g.5gb+me", 5), ("1c.2g.20gb", 20)] {
            assert_eq!(profile_memory(text), Some(gibibytes << 30), "{text}");
        }
        for bad in ["", "1g", "10gb", "g.10gb", "1g.gb", "9g.10gb", "1g.10GB", "a.10gb"] {
            assert_eq!(profile_memory(bad), None, "{bad}");
        }
    }
}
