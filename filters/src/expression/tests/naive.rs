//! Random conditions, written out and compiled, against an evaluator that walks the tree they were made from.

use fastrand::Rng;

use super::*;

/// A condition before it is written.
#[derive(Debug)]
enum Tree {
    Constant(bool),
    Not(Box<Tree>),
    And(Vec<Tree>),
    Or(Vec<Tree>),
    Compare(&'static str, Leaf, Leaf),
    In(Leaf, Vec<Leaf>),
    Call(Leaf, &'static str, String),
    Has(&'static str),
    Equal(Box<Tree>, Box<Tree>),
}

#[derive(Debug, Clone)]
enum Leaf {
    Text(String),
    TextOf(&'static str),
    Header(&'static str),
    Int(i64),
    Double(f64),
    NumberOf(&'static str),
}

#[derive(Debug, PartialEq, PartialOrd)]
enum Value {
    Text(String),
    Number(f64),
}

const TEXTS: [&str; 3] = ["request.method", "request.path", "call.workflow"];
const NUMBERS: [&str; 3] = ["response.code", "call.tries", "request.size"];
const HEADERS: [&str; 2] = ["x-a", "x-b"];
const WORDS: [&str; 6] = ["", "a", "ab", "b", "'\"\\", "ü"];

fn leaf(rng: &mut Rng, text: bool) -> Leaf {
    let word = |rng: &mut Rng| rng.choice(WORDS).unwrap_or_default().to_owned();
    match (text, rng.u8(..3)) {
        (true, 0) => Leaf::Text(word(rng)),
        (true, 1) => Leaf::TextOf(rng.choice(TEXTS).unwrap_or_default()),
        (true, _) => Leaf::Header(rng.choice(HEADERS).unwrap_or_default()),
        (false, 0) => Leaf::Int(rng.i64(-2..4)),
        (false, 1) => Leaf::Double(f64::from(rng.i32(-4..8)) / 2.0),
        (false, _) => Leaf::NumberOf(rng.choice(NUMBERS).unwrap_or_default()),
    }
}

fn tree(rng: &mut Rng, depth: usize) -> Tree {
    let several = |rng: &mut Rng| (0..rng.usize(1..4)).map(|_| tree(rng, depth - 1)).collect();
    match rng.u8(if depth == 0 { 4 } else { 0 }..10) {
        0 => Tree::Not(Box::new(tree(rng, depth - 1))),
        1 => Tree::And(several(rng)),
        2 => Tree::Or(several(rng)),
        3 => Tree::Equal(Box::new(tree(rng, depth - 1)), Box::new(tree(rng, depth - 1))),
        4 => Tree::Constant(rng.bool()),
        5 | 6 => {
            let text = rng.bool();
            let sign = rng.choice(["==", "!=", "<", "<=", ">", ">="]).unwrap_or("==");
            Tree::Compare(sign, leaf(rng, text), leaf(rng, text))
        }
        7 => {
            let text = rng.bool();
            let one = leaf(rng, text);
            Tree::In(one, (0..rng.usize(..4)).map(|_| leaf(rng, text)).collect())
        }
        8 => {
            let function =
                rng.choice(["startsWith", "endsWith", "contains", "matches"]).unwrap_or("contains");
            let word =
                rng.choice(if function == "matches" { ["a", "a|b", "^ab?$"] } else { ["", "a", "'\"\\"] });
            Tree::Call(leaf(rng, true), function, word.unwrap_or_default().to_owned())
        }
        _ => {
            let known =
                [TEXTS.as_slice(), &NUMBERS, &["request.headers['x-a']", "request.headers['x-b']"]].concat();
            Tree::Has(rng.choice(known).unwrap_or_default())
        }
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

impl Leaf {
    fn written(&self) -> String {
        match self {
            Leaf::Text(text) => quoted(text),
            Leaf::TextOf(name) | Leaf::NumberOf(name) => (*name).to_owned(),
            Leaf::Header(name) => format!("request.headers['{name}']"),
            Leaf::Int(number) => number.to_string(),
            Leaf::Double(number) => format!("{number:?}"),
        }
    }

    fn value(&self, facts: &Facts) -> Option<Value> {
        Some(match self {
            Leaf::Text(text) => Value::Text(text.clone()),
            Leaf::TextOf(name) => Value::Text(facts.texts.get(name).cloned().unwrap_or_default()),
            Leaf::Header(name) => Value::Text(facts.headers.get(*name)?.clone()),
            Leaf::Int(number) => Value::Number(*number as f64),
            Leaf::Double(number) => Value::Number(*number),
            Leaf::NumberOf(name) => Value::Number(*facts.numbers.get(name)? as f64),
        })
    }
}

impl Tree {
    fn written(&self, rng: &mut Rng) -> String {
        let space = rng.choice(["", " ", "\n"]).unwrap_or_default();
        let mut joined = |trees: &[Tree], sign: &str| {
            let parts: Vec<String> = trees.iter().map(|tree| tree.written(rng)).collect();
            format!("({})", parts.join(&format!("{space}{sign}{space}")))
        };
        match self {
            Tree::Constant(holds) => holds.to_string(),
            Tree::Not(tree) => format!("!{space}({})", tree.written(rng)),
            Tree::And(trees) => joined(trees, "&&"),
            Tree::Or(trees) => joined(trees, "||"),
            Tree::Equal(a, b) => format!("(({}) == ({}))", a.written(rng), b.written(rng)),
            Tree::Compare(sign, a, b) => format!("{}{space}{sign}{space}{}", a.written(), b.written()),
            Tree::In(one, list) => {
                let list: Vec<String> = list.iter().map(Leaf::written).collect();
                format!("{} in [{}]", one.written(), list.join(&format!(",{space}")))
            }
            Tree::Call(text, function, word) => format!("{}.{function}({})", text.written(), quoted(word)),
            Tree::Has(name) => format!("has({name})"),
        }
    }

    /// CEL's three values, as its specification says them.
    fn value(&self, facts: &Facts) -> Option<bool> {
        match self {
            Tree::Constant(holds) => Some(*holds),
            Tree::Not(tree) => tree.value(facts).map(|holds| !holds),
            Tree::And(trees) => {
                let values: Vec<_> = trees.iter().map(|tree| tree.value(facts)).collect();
                if values.contains(&Some(false)) {
                    return Some(false);
                }
                if values.contains(&None) { None } else { Some(true) }
            }
            Tree::Or(trees) => {
                let values: Vec<_> = trees.iter().map(|tree| tree.value(facts)).collect();
                if values.contains(&Some(true)) {
                    return Some(true);
                }
                if values.contains(&None) { None } else { Some(false) }
            }
            Tree::Equal(a, b) => Some(a.value(facts)? == b.value(facts)?),
            Tree::Compare(sign, a, b) => {
                let (a, b) = (a.value(facts)?, b.value(facts)?);
                Some(match *sign {
                    "==" => a == b,
                    "!=" => a != b,
                    "<" => a < b,
                    "<=" => a <= b,
                    ">" => a > b,
                    _ => a >= b,
                })
            }
            Tree::In(one, list) => {
                let one = one.value(facts)?;
                let values: Vec<_> = list.iter().map(|other| other.value(facts)).collect();
                if values.contains(&Some(one)) {
                    return Some(true);
                }
                if values.contains(&None) { None } else { Some(false) }
            }
            Tree::Call(text, function, word) => {
                let Value::Text(text) = text.value(facts)? else { return None };
                Some(match *function {
                    "startsWith" => text.starts_with(word),
                    "endsWith" => text.ends_with(word),
                    "contains" => text.contains(word),
                    _ => match &**word {
                        "a" => text.contains('a'),
                        "a|b" => text.contains(['a', 'b']),
                        _ => ["a", "ab"].contains(&&*text),
                    },
                })
            }
            Tree::Has(name) => Some(match name.strip_prefix("request.headers['") {
                Some(header) => facts.headers.contains_key(header.trim_end_matches("']")),
                None => {
                    facts.numbers.contains_key(name)
                        || facts.texts.get(name).is_some_and(|text| !text.is_empty())
                }
            }),
        }
    }
}

#[test]
fn as_a_naive_evaluator_says() {
    let mut rng = Rng::with_seed(0x5eed);
    let mut seen = BTreeMap::<Option<bool>, usize>::new();
    for round in 0..8000 {
        let tree = tree(&mut rng, 4);
        let source = tree.written(&mut rng);
        if source.len() > LONGEST || source.matches("matches").count() > 8 {
            continue;
        }
        let expression =
            Expression::compile(&source).unwrap_or_else(|error| panic!("round {round}: {source}: {error}"));
        let mut facts = Facts::default();
        for name in TEXTS.iter().filter(|_| rng.u8(..4) > 0).collect::<Vec<_>>() {
            facts.texts.insert(name, rng.choice(WORDS).unwrap_or_default().to_owned());
        }
        for name in NUMBERS.iter().filter(|_| rng.u8(..4) > 0).collect::<Vec<_>>() {
            facts.numbers.insert(name, rng.i64(-2..4));
        }
        for name in HEADERS.iter().filter(|_| rng.u8(..4) > 0).collect::<Vec<_>>() {
            facts.headers.insert((*name).to_owned(), rng.choice(WORDS).unwrap_or_default().to_owned());
        }
        let (found, naive) = (expression.evaluate(&facts), tree.value(&facts));
        assert_eq!(found, naive, "round {round}: {source} over {facts:?}");
        *seen.entry(found).or_default() += 1;
    }
    assert!(seen.len() == 3 && seen.values().all(|times| *times > 500), "each result is common: {seen:?}");
}
