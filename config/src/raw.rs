//! The kinds as they are written: one table for each object, from which come the typed raw struct, the walk
//! that reports everything wrong with a document, and `pilotfish schema`. Nothing is written twice.
//!
//! ```text
//! object! {
//!     /// A port of a service.
//!     struct Port<'n> "ServicePort" {
//!         /// The number that callers use.
//!         number = "number": Int<'n>, required;
//!     }
//! }
//! ```
//! gives `struct Port<'n> { node, number: Option<Int<'n>> }`, its [`Object`] table and its [`Raw`] reader.
//! Flags behind the type are methods of [`Field`]. What one field alone cannot say (cross references, sums)
//! is checked in `validate`.

mod agent;
mod agent_security_policy;
mod alert_rule;
mod authorization_provider;
mod destination_rule;
mod metadata;
mod observe;
mod outbound_credential;
mod placement;
mod rate_limit;
mod read;
mod role_binding;
mod security;
mod service;
mod shape;
mod sidecar;
mod telemetry_provider;
mod trust;
mod virtual_service;
mod word;

pub use agent::*;
pub use agent_security_policy::*;
pub use alert_rule::*;
pub use authorization_provider::*;
pub use destination_rule::*;
pub use metadata::*;
pub use observe::*;
pub use outbound_credential::*;
pub use placement::*;
pub use rate_limit::*;
pub use read::*;
pub use role_binding::*;
pub use security::*;
pub use service::*;
pub use shape::*;
pub use sidecar::*;
pub use telemetry_provider::*;
pub use trust::*;
pub use virtual_service::*;
pub use word::nearest;

/// Declares objects: see the module's documentation.
macro_rules! object {
    ($(
        $(#[doc = $doc:literal])*
        struct $name:ident<$n:lifetime> $title:literal {
            $(
                $(#[doc = $field_doc:literal])*
                $field:ident = $json:literal : $ty:ty $(, $flag:ident $(($($arg:expr),*))?)*;
            )*
        }
    )*) => { $(
        $(#[doc = $doc])*
        #[derive(Debug, Clone)]
        pub struct $name<$n> {
            /// Where it is written.
            pub node: $crate::yaml::Node<$n>,
            $(
                $(#[doc = $field_doc])*
                pub $field: Option<$ty>,
            )*
        }

        impl<$n> $crate::raw::Raw<$n> for $name<$n> {
            const SHAPE: $crate::raw::Shape = $crate::raw::Shape::Object(&$crate::raw::Object {
                title: $title,
                doc: &[$($doc),*],
                fields: &[$(
                    $crate::raw::Field::new(
                        $json,
                        &[$($field_doc),*],
                        &<$ty as $crate::raw::Raw>::SHAPE,
                    )$(.$flag($($($arg),*)?))*,
                )*],
            });

            fn read(node: $crate::yaml::Node<$n>, reader: &mut $crate::raw::Reader) -> Option<Self> {
                let $crate::raw::Shape::Object(object) = <Self as $crate::raw::Raw>::SHAPE else { return None };
                let mut it = $name { node, $($field: None,)* };
                reader.object(node, object, |key, value, reader| match key {
                    $($json => it.$field = <$ty as $crate::raw::Raw>::read(value, reader),)*
                    _ => {}
                })?;
                Some(it)
            }
        }
    )* };
}
pub(crate) use object;

/// Declares a closed list of words.
macro_rules! words {
    ($(
        $(#[doc = $doc:literal])*
        enum $name:ident { $($(#[doc = $word_doc:literal])* $variant:ident = $word:literal,)+ }
    )*) => { $(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum $name { $($(#[doc = $word_doc])* $variant,)+ }

        impl $crate::raw::Word for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $name::$variant),)+];
            const NAMES: &'static [&'static str] = &[$($word,)+];
        }
    )* };
}
pub(crate) use words;
