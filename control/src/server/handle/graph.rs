//! Who calls whom.

use std::time::Duration;

use pilotfish_config::units;

use super::Asked;
use crate::fleet::edges::LONGEST_WINDOW;
use crate::server::Control;
use crate::server::answer::{Answer, Denied, json};

/// What a question without a window is about.
const USUAL: Duration = Duration::from_secs(60);

/// Agents and the calls between them.
pub(super) fn graph(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&["window"])?;
    let window =
        query.get("window").map_or(Ok(USUAL), |text| units::duration(text).map_err(|why| (text, why)));
    let window = window.map_err(|(text, why)| {
        Denied::bad(format!("parameter `window` is `{}`: {why}; write 60s or 5m", text.escape_debug()))
    })?;
    if !(Duration::from_secs(10)..=LONGEST_WINDOW).contains(&window) {
        return Err(Denied::bad("parameter `window` has to be 10s to 1h"));
    }
    json(&control.fleet.graph(window))
}
