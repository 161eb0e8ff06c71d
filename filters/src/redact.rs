//! What may leave the process in spans, logs and records, and what never: credentials.
