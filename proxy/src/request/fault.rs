//! fault: delays and aborts that a rule injects, before anything is sent.
