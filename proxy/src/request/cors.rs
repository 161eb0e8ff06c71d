//! cors: preflights are answered here; the headers of other answers are set by [`crate::request::respond::Edits`].
