//! Which rule and endpoint a request would get, without sending it.

use super::Fleet;
use crate::api::types::{Explanation, Question};

impl Fleet {
    /// What a sidecar of this agent would do with a request.
    ///
    /// # Errors
    /// The question cannot be answered: why, for a person.
    pub fn explain(&self, _question: &Question) -> Result<Explanation, String> {
        Err("explain is not there yet".into())
    }
}
