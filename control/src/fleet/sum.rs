//! A digest of a set that is kept up to date by what comes and goes, not by reading the whole set again.
//!
//! Each element is hashed (SHA-512); the sum over the elements, lane by lane, does not depend on their order. So two
//! control planes with the same content have the same digest, whatever led there. It tells whether a sidecar still
//! holds what it was given; it is no proof of anything to anybody.

use aws_lc_rs::digest::{Context, SHA256, SHA512, digest};
use data_encoding::HEXLOWER;

const LANES: usize = 8;

/// The hash of one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item([u64; LANES]);

/// What kind of element an [`Item`] is; keeps elements of different kinds apart.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Kind {
    /// A document.
    Document = 1,
    /// An endpoint.
    Endpoint = 2,
    /// Whom to trust.
    Trust = 3,
    /// Who is held to something.
    Actions = 4,
}

impl Item {
    /// The hash of an element that is made of these parts.
    pub(super) fn of(kind: Kind, parts: &[&[u8]]) -> Item {
        let mut context = Context::new(&SHA512);
        context.update(&[kind as u8]);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut lanes = [0; LANES];
        for (lane, bytes) in lanes.iter_mut().zip(context.finish().as_ref().as_chunks::<8>().0) {
            *lane = u64::from_be_bytes(*bytes);
        }
        Item(lanes)
    }
}

/// The sum over a set. The default is that of the empty set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum([u64; LANES]);

impl Sum {
    /// One more element.
    pub(super) fn add(&mut self, item: &Item) {
        self.0.iter_mut().zip(item.0).for_each(|(own, more)| *own = own.wrapping_add(more));
    }

    /// One element less.
    pub(super) fn remove(&mut self, item: &Item) {
        self.0.iter_mut().zip(item.0).for_each(|(own, less)| *own = own.wrapping_sub(less));
    }

    /// 64 hexadecimal digits.
    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().flat_map(|lane| lane.to_be_bytes()).collect();
        HEXLOWER.encode(digest(&SHA256, &bytes).as_ref())
    }
}
