//! Why replicas have no place, for a person.

use super::books::Books;
use super::fill::Lack;
use super::place::Unplaced;

/// What keeps a group from having what it lacks.
pub(super) fn unplaced(books: &mut Books<'_>, lack: &Lack) -> Unplaced {
    let group = &books.world.groups[lack.group];
    Unplaced { group: group.id.clone(), count: lack.count, reasons: Vec::new(), hint: None }
}
