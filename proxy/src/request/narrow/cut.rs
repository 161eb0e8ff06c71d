//! Takes elements out of lists in JSON text, and leaves every other byte as it is: no member changes its place, no number its digits.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::IgnoredAny;

/// JSON text that is certain to be JSON.
#[derive(Debug, Clone, Copy)]
pub struct Json<'t>(&'t [u8]);

/// A value: where it is written.
pub type Place = Range<usize>;

/// What is written in a value's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum With {
    /// Of an array these elements.
    Elements(Vec<Place>),
    /// Another value of the text.
    Copy(Place),
    /// Nothing.
    Null,
}

/// The text could be read in two ways: a member that matters is there twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ambiguous;

impl<'t> Json<'t> {
    /// `None`: it is not JSON.
    pub fn new(text: &'t [u8]) -> Option<Json<'t>> {
        std::str::from_utf8(text).ok()?;
        serde_json::from_slice::<IgnoredAny>(text).ok()?;
        Some(Json(text))
    }

    /// The whole value.
    pub fn whole(&self) -> Place {
        let start = self.blank(0);
        start..self.end(start)
    }

    /// The member of an object; `None` when there is none, or this is no object.
    ///
    /// # Errors
    /// It is there twice.
    pub fn member(&self, object: &Place, name: &str) -> Result<Option<Place>, Ambiguous> {
        let mut found = None;
        if self.0.get(object.start) != Some(&b'{') {
            return Ok(None);
        }
        let mut at = self.blank(object.start + 1);
        while self.0.get(at) == Some(&b'"') {
            let key = at..self.end(at);
            let value = self.blank(self.blank(key.end) + 1);
            let value = value..self.end(value);
            if self.text(&key).is_some_and(|key| key == name) && found.replace(value.clone()).is_some() {
                return Err(Ambiguous);
            }
            at = self.next(value.end);
        }
        Ok(found)
    }

    /// The elements of an array; `None`: this is none.
    pub fn elements(&self, array: &Place) -> Option<Vec<Place>> {
        if self.0.get(array.start) != Some(&b'[') {
            return None;
        }
        let mut elements = Vec::new();
        let mut at = self.blank(array.start + 1);
        while at + 1 < array.end && self.0.get(at) != Some(&b']') {
            let element = at..self.end(at);
            at = self.next(element.end);
            elements.push(element);
        }
        Some(elements)
    }

    /// A string's text; `None`: this is none.
    pub fn text(&self, place: &Place) -> Option<Cow<'t, str>> {
        let written = self.0.get(place.clone())?;
        let inner = written.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        if !inner.contains(&b'\\') {
            return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
        }
        serde_json::from_slice(written).ok().map(Cow::Owned)
    }

    /// The text with other values in some places, which do not overlap and are in their order.
    pub fn with(&self, values: &[(Place, With)]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len());
        let mut at = 0;
        for (place, with) in values {
            out.extend_from_slice(&self.0[at..place.start]);
            match with {
                With::Elements(kept) => {
                    out.push(b'[');
                    for (position, element) in kept.iter().enumerate() {
                        if position > 0 {
                            out.push(b',');
                        }
                        out.extend_from_slice(&self.0[element.clone()]);
                    }
                    out.push(b']');
                }
                With::Copy(other) => out.extend_from_slice(&self.0[other.clone()]),
                With::Null => out.extend_from_slice(b"null"),
            }
            at = place.end;
        }
        out.extend_from_slice(&self.0[at..]);
        out
    }

    /// Behind blanks.
    fn blank(&self, at: usize) -> usize {
        let rest = self.0.get(at..).unwrap_or_default();
        at + rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count()
    }

    /// Behind the comma that may follow a value.
    fn next(&self, end: usize) -> usize {
        let at = self.blank(end);
        if self.0.get(at) == Some(&b',') { self.blank(at + 1) } else { at }
    }

    /// The end of the value that begins here.
    fn end(&self, start: usize) -> usize {
        let (mut at, mut depth) = (start, 0_usize);
        while let Some(byte) = self.0.get(at) {
            match byte {
                b'"' => at = self.string_end(at),
                b'{' | b'[' => {
                    depth += 1;
                    at += 1;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    at += 1;
                }
                b'}' | b']' | b',' | b':' if depth == 0 => return at,
                b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
                _ => {
                    at += 1;
                    continue;
                }
            }
            if depth == 0 {
                return at;
            }
        }
        at
    }

    fn string_end(&self, start: usize) -> usize {
        let mut at = start + 1;
        while let Some(byte) = self.0.get(at) {
            match byte {
                b'\\' => at += 2,
                b'"' => return at + 1,
                _ => at += 1,
            }
        }
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use serde_json::Value;

    use super::*;

    #[test]
    fn everything_else_stays_as_it_is() {
        let text = br#" {"z" : 1.50, "t\u006fols" :[ {"name":"a", "x":[1,"]"]} ,{"name":"b\"}"},"c" , {} ], "a":null}  "#;
        let json = Json::new(text).unwrap();
        let tools = json.member(&json.whole(), "tools").unwrap().unwrap();
        let all = json.elements(&tools).unwrap();
        assert_eq!(all.len(), 4);
        let name = json.member(&all[1], "name").unwrap().unwrap();
        assert_eq!(json.text(&name).as_deref(), Some("b\"}"));
        assert_eq!(json.member(&all[2], "name"), Ok(None));
        let cut = json.with(&[(tools, With::Elements(vec![all[1].clone(), all[3].clone()]))]);
        let expected = br#" {"z" : 1.50, "t\u006fols" :[{"name":"b\"}"},{}], "a":null}  "#;
        assert_eq!(String::from_utf8(cut).unwrap(), String::from_utf8(expected.to_vec()).unwrap());
        assert!(Json::new(b"{\"a\":1} x").is_none() && Json::new(b"").is_none());
        let twice = Json::new(br#"{"a":1,"\u0061":2}"#).unwrap();
        assert_eq!(twice.member(&twice.whole(), "a"), Err(Ambiguous));
    }

    fn random(random: &mut Rng, depth: usize) -> String {
        let blank = |random: &mut Rng| ["", " ", "\n\t"][random.usize(0..3)];
        let inner = |random: &mut Rng| {
            format!("{}{}{}", blank(random), self::random(random, depth + 1), blank(random))
        };
        match random.u8(0..8) {
            0 | 1 if depth < 4 => {
                let all: Vec<String> = (0..random.usize(0..4)).map(|_| inner(random)).collect();
                format!("[{}{}]", blank(random), all.join(","))
            }
            2 | 3 if depth < 4 => {
                let member = |(i, value): (usize, String)| {
                    format!("{}\"k{i}\"{}:{value}", ["", " "][i % 2], ["", " "][i / 2 % 2])
                };
                let all: Vec<String> = (0..random.usize(0..4)).map(|_| inner(random)).collect();
                format!("{{{}}}", all.into_iter().enumerate().map(member).collect::<Vec<_>>().join(","))
            }
            4 => ["-1.5e3", "0", "true", "null"][random.usize(0..4)].to_owned(),
            _ => [r#""a""#, r#""\"]""#, r#""\\""#, r#""{,:""#, r#""\u00e9é""#][random.usize(0..5)].to_owned(),
        }
    }

    #[test]
    fn what_is_found_is_what_a_parser_finds() {
        let mut rng = Rng::with_seed(3);
        for _ in 0..20_000 {
            let text = random(&mut rng, 0);
            let json = Json::new(text.as_bytes()).unwrap();
            check(&json, &json.whole(), &serde_json::from_str(&text).unwrap());
        }
    }

    fn check(json: &Json<'_>, place: &Place, value: &Value) {
        let read: Value = serde_json::from_slice(&json.0[place.clone()]).unwrap();
        assert_eq!(read, *value);
        match value {
            Value::Array(values) => {
                let elements = json.elements(place).unwrap();
                assert_eq!(elements.len(), values.len());
                elements.iter().zip(values).for_each(|(place, value)| check(json, place, value));
            }
            Value::Object(members) => {
                for (key, value) in members {
                    check(json, &json.member(place, key).unwrap().unwrap(), value);
                }
                assert_eq!((json.member(place, "none"), json.elements(place)), (Ok(None), None));
            }
            Value::String(text) => assert_eq!(json.text(place).as_deref(), Some(text.as_str())),
            _ => assert_eq!(json.text(place), None),
        }
    }
}
