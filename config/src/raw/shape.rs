//! The field table: what a document may contain.

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A text.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int {
        /// At least.
        min: i64,
        /// At most.
        max: i64,
    },
    /// A decimal number.
    Number,
    /// A time with a unit: `1.5s`, `300ms`, `1h30m`.
    Duration,
    /// One of these words.
    Words(&'static [&'static str]),
    /// Any of these forms.
    Either(&'static [Shape]),
    /// A list.
    List(&'static Shape),
    /// A map with free keys.
    Map(&'static Shape),
    /// A map with known keys.
    Object(&'static Object),
    /// Anything; not looked into.
    Any,
}

/// A map with known keys.
#[derive(Debug)]
pub struct Object {
    /// Its name in the schema.
    pub title: &'static str,
    /// What it means, line by line.
    pub doc: &'static [&'static str],
    /// The keys.
    pub fields: &'static [Field],
}

impl Object {
    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// A key of an object.
#[derive(Debug)]
pub struct Field {
    /// The key as written.
    pub name: &'static str,
    /// What it means, line by line.
    pub doc: &'static [&'static str],
    /// What its value may be.
    pub shape: &'static Shape,
    /// It must be there.
    pub required: bool,
    /// What this release does with it.
    pub status: Status,
    /// Of all fields with the same group, at most one may be written.
    pub group: Option<&'static str>,
}

/// What this release does with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It acts on it.
    Enforced,
    /// It reads and checks it, and does not act on it yet.
    Later,
    /// It acts on it; another field says the same better.
    Deprecated(&'static str),
    /// It never acts on it, for this reason.
    Ignored(&'static str),
}

impl Field {
    /// A field that is optional and enforced.
    pub const fn new(name: &'static str, doc: &'static [&'static str], shape: &'static Shape) -> Field {
        Field { name, doc, shape, required: false, status: Status::Enforced, group: None }
    }

    /// It must be there.
    pub const fn required(mut self) -> Field {
        self.required = true;
        self
    }

    /// This release does not act on it yet.
    pub const fn later(mut self) -> Field {
        self.status = Status::Later;
        self
    }

    /// Another field says the same better.
    pub const fn deprecated(mut self, instead: &'static str) -> Field {
        self.status = Status::Deprecated(instead);
        self
    }

    /// It is never acted on.
    pub const fn ignored(mut self, why: &'static str) -> Field {
        self.status = Status::Ignored(why);
        self
    }

    /// At most one of the group may be written.
    pub const fn one_of(mut self, group: &'static str) -> Field {
        self.group = Some(group);
        self
    }
}
