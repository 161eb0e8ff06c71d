//! `docs/reference.md` is what the tables say. `UPDATE_GOLDEN=1` writes it anew.

use std::path::Path;

#[test]
fn the_reference_is_what_the_tables_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md");
    let now = pilotfish_config::reference::markdown();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == now,
        "docs/reference.md is old: UPDATE_GOLDEN=1 cargo test -p pilotfish-config reference"
    );
}
