//! What is said to a person who asked for too much.
