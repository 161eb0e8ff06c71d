//! Scripted origins, recording origins and raw clients for tests from outside.
