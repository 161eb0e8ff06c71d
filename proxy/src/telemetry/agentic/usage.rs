//! What the JSON of a model's answer says of itself: tokens, model, id, why it ended. OpenAI's two formats and all that copy them,
//! Anthropic's, Gemini's, Ollama's; whole answers and events of streams.
//!
//! It may be anything, cut off anywhere: what is whole before the cut counts, what has another type than expected is not there.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Texts longer than this are not kept, bytes.
const LONGEST: usize = 128;
/// Reasons that are kept, of as many choices.
const REASONS: usize = 8;

/// What is known of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// The model that answered.
    pub model: Option<Box<str>>,
    /// The provider's id of the answer.
    pub id: Option<Box<str>>,
    /// Why each choice ended.
    pub finish_reasons: Vec<Box<str>>,
    /// Tokens in.
    pub input: Option<u64>,
    /// Tokens out.
    pub output: Option<u64>,
    /// Tokens in that came from a cache.
    pub cached: Option<u64>,
    /// Tokens in that were put into a cache.
    pub cache_creation: Option<u64>,
    /// Tokens out that were thought and not said.
    pub reasoning: Option<u64>,
}

impl Usage {
    /// Reads one JSON value, and what was whole of it when it is cut off. What is no JSON says nothing.
    pub fn read(&mut self, json: &[u8]) {
        self.read_at(json, At::Top);
    }

    /// Reads the value of `usage` that a text ends with, when the text's beginning is lost.
    pub fn read_last(&mut self, text: &[u8]) {
        for key in [&b"\"usage\""[..], b"\"usageMetadata\""] {
            let Some(at) = memchr::memmem::rfind(text, key) else { continue };
            // A quote within a text has a backslash before it.
            if at > 0 && text[at - 1] == b'\\' {
                continue;
            }
            let after = text[at + key.len()..].trim_ascii_start();
            if let Some(value) = after.strip_prefix(b":") {
                self.read_at(value, At::Usage);
            }
        }
    }

    fn read_at(&mut self, json: &[u8], at: At) {
        // A number at the very end may go on after the cut, so it is not read.
        let of_number = |b: &u8| matches!(b, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E');
        let end = json.len() - json.iter().rev().take_while(|b| of_number(b)).count();
        let mut found = Usage::default();
        let mut reader = serde_json::Deserializer::from_slice(&json[..end]);
        match (Level { found: &mut found, at }).deserialize(&mut reader) {
            Ok(()) => {}
            Err(error) if error.is_eof() => {}
            Err(_) => return,
        }
        self.take_in(found);
    }

    /// Later events know more: of counts the larger holds (they grow), of texts the first that was said.
    fn take_in(&mut self, other: Usage) {
        self.model = self.model.take().or(other.model);
        self.id = self.id.take().or(other.id);
        for reason in other.finish_reasons {
            if self.finish_reasons.len() < REASONS {
                self.finish_reasons.push(reason);
            }
        }
        let max = |own: &mut Option<u64>, other: Option<u64>| *own = (*own).max(other);
        max(&mut self.input, other.input);
        max(&mut self.output, other.output);
        max(&mut self.cached, other.cached);
        max(&mut self.cache_creation, other.cache_creation);
        max(&mut self.reasoning, other.reasoning);
    }
}

/// Where in the answer something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The answer, or an event.
    Top,
    /// The answer within an event (`message`, `response`).
    Inner,
    /// `usage`, `usageMetadata`.
    Usage,
    /// `prompt_tokens_details` and the like.
    Details,
    /// One of `choices`, `candidates`.
    Choice,
    /// `delta`.
    Delta,
}

struct Level<'a> {
    found: &'a mut Usage,
    at: At,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Level { found, at } = self;
        while let Some(Text(key)) = map.next_key::<Text<'_>>()? {
            let key = key.as_deref().unwrap_or_default();
            let within = match (at, key) {
                (At::Top, "message" | "response") => Some(At::Inner),
                (At::Top, "delta") => Some(At::Delta),
                (At::Top | At::Inner, "usage" | "usageMetadata") => Some(At::Usage),
                (At::Top | At::Inner, "choices" | "candidates") => Some(At::Choice),
                (At::Usage, "prompt_tokens_details" | "input_tokens_details") => Some(At::Details),
                (At::Usage, "completion_tokens_details" | "output_tokens_details") => Some(At::Details),
                _ => None,
            };
            if let Some(at) = within {
                map.next_value_seed(Level { found, at })?;
                continue;
            }
            let text = match (at, key) {
                (At::Top | At::Inner, "id" | "responseId") => Some(&mut found.id),
                (At::Top | At::Inner, "model" | "modelVersion") => Some(&mut found.model),
                _ => None,
            };
            if let Some(place) = text {
                *place = map.next_value::<Text<'_>>()?.kept();
                continue;
            }
            let is_reason = matches!(
                (at, key),
                (At::Choice, "finish_reason" | "finishReason")
                    | (At::Top | At::Inner | At::Delta, "stop_reason")
                    | (At::Top, "done_reason")
            );
            if is_reason {
                let reason = map.next_value::<Text<'_>>()?.kept();
                found.finish_reasons.extend(reason.filter(|_| found.finish_reasons.len() < REASONS));
                continue;
            }
            let count = match (at, key) {
                (At::Usage, "prompt_tokens" | "input_tokens" | "promptTokenCount") => Some(&mut found.input),
                (At::Usage, "completion_tokens" | "output_tokens" | "candidatesTokenCount") => {
                    Some(&mut found.output)
                }
                (At::Usage, "cache_read_input_tokens" | "cachedContentTokenCount") => Some(&mut found.cached),
                (At::Usage, "cache_creation_input_tokens") => Some(&mut found.cache_creation),
                (At::Usage, "thoughtsTokenCount") => Some(&mut found.reasoning),
                (At::Details, "cached_tokens") => Some(&mut found.cached),
                (At::Details, "reasoning_tokens") => Some(&mut found.reasoning),
                (At::Top, "prompt_eval_count") => Some(&mut found.input),
                (At::Top, "eval_count") => Some(&mut found.output),
                _ => None,
            };
            match count {
                Some(place) => *place = map.next_value::<Count>()?.0,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Level { found, at } = self;
        if at == At::Choice {
            while seq.next_element_seed(Level { found, at })?.is_some() {}
        } else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A text, if it is one.
struct Text<'de>(Option<Cow<'de, str>>);

impl Text<'_> {
    /// As it may be kept: of a sensible length, and nothing but visible characters.
    fn kept(self) -> Option<Box<str>> {
        let text = self.0?;
        let fits = !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| text.into())
    }
}

/// A count, if it is one.
struct Count(Option<u64>);

/// Takes any value, and what it is when it is a text or a count.
struct Scalar;

enum Is<'de> {
    Text(Cow<'de, str>),
    Count(u64),
    Else,
}

impl<'de> Visitor<'de> for Scalar {
    type Value = Is<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any JSON value")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Is<'de>, E> {
        Ok(Is::Text(text.into()))
    }
    fn visit_str<E>(self, text: &str) -> Result<Is<'de>, E> {
        Ok(if text.len() <= LONGEST { Is::Text(text.to_owned().into()) } else { Is::Else })
    }
    fn visit_u64<E>(self, count: u64) -> Result<Is<'de>, E> {
        Ok(Is::Count(count))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Is<'de>, E> {
        Ok(Is::Else)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Is<'de>, E> {
        Ok(Is::Else)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Is<'de>, E> {
        Ok(Is::Else)
    }
    fn visit_unit<E>(self) -> Result<Is<'de>, E> {
        Ok(Is::Else)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Is<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Is::Else)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Is<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Is::Else)
    }
}

impl<'de> serde::Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Text(match deserializer.deserialize_any(Scalar)? {
            Is::Text(text) => Some(text),
            _ => None,
        }))
    }
}

impl<'de> serde::Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // More than any model has ever had: a text that says so is no count.
        const MOST: u64 = 1 << 40;
        match deserializer.deserialize_any(Scalar)? {
            Is::Count(count) if count > MOST => Err(D::Error::custom("no count of tokens")),
            Is::Count(count) => Ok(Count(Some(count))),
            _ => Ok(Count(None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Usage {
        let mut usage = Usage::default();
        usage.read(json.as_bytes());
        usage
    }

    fn counts(usage: &Usage) -> [Option<u64>; 5] {
        [usage.input, usage.output, usage.cached, usage.cache_creation, usage.reasoning]
    }

    #[test]
    fn each_providers_answer() {
        let openai = read(
            r#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-x-2026","choices":[{"index":0,"message":{"role":"assistant",
            "content":"hi","id":"no"},"finish_reason":"stop"},{"finish_reason":"length"}],"usage":{"prompt_tokens":11,"completion_tokens":7,
            "total_tokens":18,"prompt_tokens_details":{"cached_tokens":3},"completion_tokens_details":{"reasoning_tokens":5}}}"#,
        );
        assert_eq!(counts(&openai), [Some(11), Some(7), Some(3), None, Some(5)]);
        assert_eq!((openai.id.as_deref(), openai.model.as_deref()), (Some("chatcmpl-1"), Some("gpt-x-2026")));
        assert_eq!(openai.finish_reasons, ["stop".into(), "length".into()]);
        let responses = read(
            r#"{"type":"response.completed","response":{"id":"resp_1","model":"m","usage":{"input_tokens":5,"input_tokens_details":
            {"cached_tokens":1},"output_tokens":6,"output_tokens_details":{"reasoning_tokens":2}}}}"#,
        );
        assert_eq!(counts(&responses), [Some(5), Some(6), Some(1), None, Some(2)]);
        assert_eq!(responses.id.as_deref(), Some("resp_1"));
        let anthropic = read(
            r#"{"id":"msg_1","model":"claude-x","stop_reason":"end_turn","usage":{"input_tokens":9,"output_tokens":4,
            "cache_read_input_tokens":2,"cache_creation_input_tokens":1}}"#,
        );
        assert_eq!(counts(&anthropic), [Some(9), Some(4), Some(2), Some(1), None]);
        assert_eq!(anthropic.finish_reasons, ["end_turn".into()]);
        let gemini = read(
            r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,
            "candidatesTokenCount":8,"thoughtsTokenCount":4},"modelVersion":"gemini-x","responseId":"r"}"#,
        );
        assert_eq!(counts(&gemini), [Some(3), Some(8), None, None, Some(4)]);
        assert_eq!((gemini.id.as_deref(), gemini.model.as_deref()), (Some("r"), Some("gemini-x")));
        let ollama = read(
            r#"{"model":"llama-x","message":{"role":"assistant","content":""},"done_reason":"stop","done":true,
            "prompt_eval_count":26,"eval_count":298}"#,
        );
        assert_eq!(counts(&ollama), [Some(26), Some(298), None, None, None]);
        assert_eq!(ollama.model.as_deref(), Some("llama-x"));
    }

    #[test]
    fn what_is_cut_off_counts_up_to_there() {
        let cut = read(r#"{"model":"m","usage":{"prompt_tokens":11,"completion_tokens":7"#);
        assert_eq!((cut.model.as_deref(), counts(&cut)), (Some("m"), [Some(11), None, None, None, None]));
        let mut lost = Usage::default();
        lost.read_last(br#"...0.123,0.5]}],"model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}"#);
        assert_eq!(lost.input, Some(8));
        let mut quoted = Usage::default();
        quoted.read_last(br#""content":"say \"usage\":{\"prompt_tokens\":8}"}"#);
        assert_eq!(quoted, Usage::default());
    }

    #[test]
    fn hostile_answers_say_nothing() {
        let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        let deep_usage = format!(r#"{{"usage":{}"#, r#"{"usage":"#.repeat(30_000));
        let long = format!(r#"{{"model":"{}","id":"a b","usage":"none"}}"#, "x".repeat(5000));
        for bad in [
            &deep[..],
            &deep_usage,
            &long,
            r#"{"model":7,"id":{"a":1},"usage":[1,2],"choices":{"finish_reason":1}}"#,
            r#"{"usage":{"prompt_tokens":-4,"completion_tokens":1.5,"input_tokens":"9"}}"#,
            r#"{"usage":{"prompt_tokens":99999999999999}}"#,
            "null",
            "",
            "}",
        ] {
            assert_eq!(read(bad), Usage::default(), "{}", &bad[..bad.len().min(60)]);
        }
        let mut usage = Usage::default();
        usage.read(b"{\"model\":\"\xff\xfe\",\"usage\":{\"prompt_tokens\":1}}");
        assert_eq!(usage, Usage::default());
        let many = format!(r#"{{"choices":[{}{{}}]}}"#, r#"{"finish_reason":"stop"},"#.repeat(1000));
        assert_eq!(read(&many).finish_reasons.len(), REASONS);
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut rng = fastrand::Rng::with_seed(7);
        let alphabet = b"{}[]\":,0129.eE-\\ usage\"model\"\xff";
        for _ in 0..20_000 {
            let text: Vec<u8> =
                (0..rng.usize(0..80)).map(|_| alphabet[rng.usize(0..alphabet.len())]).collect();
            let mut usage = Usage::default();
            usage.read(&text);
            usage.read_last(&text);
        }
    }
}
