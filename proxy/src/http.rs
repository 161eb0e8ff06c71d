//! The HTTP engine: bytes on a socket to heads and bodies and back, HTTP/1.1 and HTTP/2, both sides.
