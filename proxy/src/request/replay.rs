//! replay: the request's body is kept while it streams, so that another try can send it again.
