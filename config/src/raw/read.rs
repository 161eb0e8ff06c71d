//! Reading a node as a raw value, reporting everything that does not fit.

use std::ops::Deref;
use std::time::Duration;

use super::{Field, Object, Shape, Status, nearest};
use crate::diagnose::Diagnose;
use crate::units;
use crate::yaml::{Node, Type};

/// Something that a node can be read as. `None`: it did not fit, and that was reported.
pub trait Raw<'n>: Sized {
    /// What fits.
    const SHAPE: Shape;
    /// Reads it.
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self>;
}

/// A closed list of words.
pub trait Word: Copy + 'static {
    /// The words and their meaning.
    const WORDS: &'static [(&'static str, Self)];
    /// The words alone.
    const NAMES: &'static [&'static str];
}

/// A value and where it is written.
#[derive(Debug, Clone, Copy)]
pub struct Val<'n, T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub node: Node<'n>,
}

impl<T> Deref for Val<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// A text.
pub type Text<'n> = Val<'n, &'n str>;
/// A boolean.
pub type Bool<'n> = Val<'n, bool>;
/// A whole number that fits 32 bits, 0 or more (uint32).
pub type Int<'n> = Val<'n, u32>;
/// A whole number that may be negative (int32).
pub type Signed<'n> = Val<'n, i32>;
/// A whole number, 0 or more (uint64).
pub type Long<'n> = Val<'n, u64>;
/// A decimal number.
pub type Number<'n> = Val<'n, f64>;
/// A time with a unit.
pub type Time<'n> = Val<'n, Duration>;
/// One of a list of words.
pub type One<'n, W> = Val<'n, W>;
/// A list.
pub type List<T> = Vec<T>;
/// A map with free keys, in the order of writing; the key's place is its value's node's.
pub type Map<'n, T> = Vec<(Val<'n, &'n str>, T)>;
/// A map from text to text.
pub type TextMap<'n> = Map<'n, Text<'n>>;

/// Reads nodes and collects what is wrong.
pub struct Reader<'d> {
    /// Where complaints go.
    pub diagnose: &'d mut Diagnose,
}

impl Reader<'_> {
    /// Reads the keys of an object: `set` gets each known key whose value is not nothing.
    pub fn object<'n>(
        &mut self,
        node: Node<'n>,
        object: &'static Object,
        mut set: impl FnMut(&str, Node<'n>, &mut Self),
    ) -> Option<()> {
        if !matches!(node.kind(), Type::Map | Type::Null) {
            self.wrong_type(node, "a map");
            return None;
        }
        // At most 64 fields an object: the tests check it.
        let mut seen = 0u64;
        for child in node.children() {
            let Some(position) = object.fields.iter().position(|field| field.name == child.key()) else {
                self.unknown(child, object);
                continue;
            };
            if child.is_null() {
                continue;
            }
            seen |= 1 << position;
            self.status(child, object, &object.fields[position]);
            set(child.key(), child, self);
        }
        self.required(node, object, seen);
        self.groups(node, object, seen);
        Some(())
    }

    fn unknown(&mut self, child: Node<'_>, object: &'static Object) {
        let names = || object.fields.iter().map(|field| field.name);
        let hint = match nearest(child.key(), names()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("known: {}", names().collect::<Vec<_>>().join(", ")),
        };
        let what = format!("unknown field of {}", object.title);
        self.diagnose.error_at_key(child, what, Some(hint));
    }

    fn status(&mut self, child: Node<'_>, object: &'static Object, field: &'static Field) {
        match field.status {
            Status::Enforced => {}
            Status::Later => self.diagnose.later(child, object, field),
            Status::Deprecated(instead) => {
                self.diagnose.warn_at_key(child, "deprecated".into(), Some(format!("write {instead}")));
            }
            Status::Ignored(why) => self.diagnose.warn_at_key(child, "does nothing".into(), Some(why.into())),
        }
    }

    fn required(&mut self, node: Node<'_>, object: &'static Object, seen: u64) {
        for (position, field) in object.fields.iter().enumerate() {
            if field.required && seen & (1 << position) == 0 {
                let what = format!("the required field `{}` is missing", field.name);
                self.diagnose.error(node, what, None);
            }
        }
    }

    fn groups(&mut self, node: Node<'_>, object: &'static Object, seen: u64) {
        let mut first: Option<&Field> = None;
        for (position, field) in object.fields.iter().enumerate() {
            if field.group.is_none() || seen & (1 << position) == 0 {
                continue;
            }
            match first {
                Some(other) if other.group == field.group => {
                    let at = node.get(field.name).unwrap_or(node);
                    let what = format!("`{}` and `{}` exclude each other", other.name, field.name);
                    self.diagnose.error_at_key(at, what, Some("keep one of them".into()));
                }
                _ => first = Some(field),
            }
        }
    }

    fn wrong_type(&mut self, node: Node<'_>, wanted: &str) {
        let got = node.kind();
        let hint = match got {
            Type::Number | Type::Bool if wanted == "a text" => {
                node.scalar().map(|scalar| format!("quote it: \"{}\"", scalar.text))
            }
            Type::Map | Type::Text if wanted == "a list" => Some("start each item with `- `".into()),
            _ => None,
        };
        self.diagnose.error(node, format!("expected {wanted}, found {}", got.article()), hint);
    }

    fn fail<T>(&mut self, node: Node<'_>, wanted: &str) -> Option<T> {
        self.wrong_type(node, wanted);
        None
    }

    /// A whole number from a plain number, or from a quoted one as proto3 JSON allows.
    fn whole<'n, T: TryFrom<i128>>(&mut self, node: Node<'n>, range: &str) -> Option<Val<'n, T>> {
        let Some(scalar) = node.scalar() else { return self.fail(node, "a whole number") };
        let Some(number) = units::whole(scalar.text) else {
            let what = format!("`{}` is not a whole number", crate::yaml::clip_text(scalar.text));
            self.diagnose.error(node, what, None);
            return None;
        };
        let Ok(value) = T::try_from(number) else {
            self.diagnose.error(node, format!("{number} is out of range"), Some(format!("allowed: {range}")));
            return None;
        };
        Some(Val { value, node })
    }
}

impl<'n> Raw<'n> for Text<'n> {
    const SHAPE: Shape = Shape::Text;
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        match (node.kind(), node.scalar()) {
            (Type::Text, Some(scalar)) => Some(Val { value: scalar.text, node }),
            _ => reader.fail(node, "a text"),
        }
    }
}

impl<'n> Raw<'n> for Bool<'n> {
    const SHAPE: Shape = Shape::Bool;
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        let value = match node.scalar().filter(|scalar| scalar.plain).map(|scalar| scalar.text) {
            // The words of YAML 1.1 too, because kubectl takes them.
            Some("true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON") => true,
            Some("false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF") => false,
            _ => return reader.fail(node, "true or false"),
        };
        Some(Val { value, node })
    }
}

impl<'n> Raw<'n> for Int<'n> {
    const SHAPE: Shape = Shape::Int { min: 0, max: u32::MAX as i64 };
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        reader.whole(node, "0 to 4294967295")
    }
}

impl<'n> Raw<'n> for Signed<'n> {
    const SHAPE: Shape = Shape::Int { min: i32::MIN as i64, max: i32::MAX as i64 };
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        reader.whole(node, "-2147483648 to 2147483647")
    }
}

impl<'n> Raw<'n> for Long<'n> {
    const SHAPE: Shape = Shape::Int { min: 0, max: i64::MAX };
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        reader.whole(node, "0 to 18446744073709551615")
    }
}

impl<'n> Raw<'n> for Number<'n> {
    const SHAPE: Shape = Shape::Number;
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        let number = node.scalar().and_then(|scalar| scalar.text.parse::<f64>().ok());
        match number.filter(|number| number.is_finite()) {
            Some(value) => Some(Val { value, node }),
            // YAML has words for what is infinite and what is none.
            None if node.kind() == Type::Number => reader.fail(node, "a finite number"),
            None => reader.fail(node, "a number"),
        }
    }
}

impl<'n> Raw<'n> for Time<'n> {
    const SHAPE: Shape = Shape::Duration;
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        let Some(scalar) = node.scalar() else { return reader.fail(node, "a duration") };
        match units::duration(scalar.text) {
            Ok(value) => Some(Val { value, node }),
            Err(hint) => {
                let what = format!("`{}` is not a duration", crate::yaml::clip_text(scalar.text));
                reader.diagnose.error(node, what, Some(hint.into()));
                None
            }
        }
    }
}

impl<'n, W: Word> Raw<'n> for Val<'n, W> {
    const SHAPE: Shape = Shape::Words(W::NAMES);
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        let Some(scalar) = node.scalar() else { return reader.fail(node, "a word") };
        if let Some((_, value)) = W::WORDS.iter().find(|(word, _)| *word == scalar.text) {
            return Some(Val { value: *value, node });
        }
        let hint = match nearest(scalar.text, W::NAMES.iter().copied()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("known: {}", W::NAMES.join(", ")),
        };
        let what = format!("`{}` is not a known value", crate::yaml::clip_text(scalar.text));
        reader.diagnose.error(node, what, Some(hint));
        None
    }
}

impl<'n, T: Raw<'n>> Raw<'n> for Vec<T> {
    const SHAPE: Shape = Shape::List(&T::SHAPE);
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        if node.kind() != Type::List {
            return reader.fail(node, "a list");
        }
        // Exactly: most lists have one item, and a vector's first growth makes room for four.
        let mut list = Vec::with_capacity(node.count());
        for child in node.children() {
            if child.is_null() {
                reader.diagnose.error(child, "a list item is empty".into(), None);
            } else if let Some(item) = T::read(child, reader) {
                list.push(item);
            }
        }
        Some(list)
    }
}

impl<'n, T: Raw<'n>> Raw<'n> for Vec<(Val<'n, &'n str>, T)> {
    const SHAPE: Shape = Shape::Map(&T::SHAPE);
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        if node.kind() != Type::Map {
            return reader.fail(node, "a map");
        }
        let mut map = Vec::with_capacity(node.count());
        for child in node.children() {
            let key = Val { value: child.key(), node: child };
            if let Some(value) = T::read(child, reader) {
                map.push((key, value));
            }
        }
        Some(map)
    }
}

/// A rare part of something that there are many of: keeps the whole small.
impl<'n, T: Raw<'n>> Raw<'n> for Box<T> {
    const SHAPE: Shape = T::SHAPE;
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        T::read(node, reader).map(Box::new)
    }
}

/// A value that is not looked into.
#[derive(Debug, Clone, Copy)]
pub struct Any;

impl<'n> Raw<'n> for Any {
    const SHAPE: Shape = Shape::Any;
    fn read(_: Node<'n>, _: &mut Reader) -> Option<Self> {
        Some(Any)
    }
}
