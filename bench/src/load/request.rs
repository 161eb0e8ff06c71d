//! What the clients ask for. Every rival gets the same bytes.

/// The service's name in every peer's configuration.
pub const HOST: &str = "app.bench.local";

/// The request's path.
#[derive(Clone, Debug)]
pub enum Path {
    /// Always the same.
    Fixed(String),
    /// `/agents/K/run` with K going round from 0: each request meets another rule.
    Rotating(usize),
}

/// The value of `x-hash`.
#[derive(Clone, Copy, Debug)]
pub enum Keys {
    /// One key for each connection, as a conversation has.
    PerConnection,
    /// Going round this many keys.
    Rotating(usize),
}

/// How important a request says it is (`agent-priority`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// One in ten of a mix.
    Critical,
    /// What says nothing.
    #[default]
    Default,
    /// Every second one of the others.
    Sheddable,
}

impl Class {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Default, Self::Sheddable];

    /// The word in the header.
    pub fn word(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Default => "default",
            Self::Sheddable => "sheddable",
        }
    }
}

/// Writes requests, one after the other.
pub struct Requests {
    path: Path,
    keys: Keys,
    body: usize,
    watch: Option<String>,
    mixed: bool,
    turn: usize,
}

impl Requests {
    /// GETs without a body, watching no header.
    pub fn new(path: Path, keys: Keys) -> Self {
        Self { path, keys, body: 0, watch: None, mixed: false, turn: 0 }
    }

    /// POSTs of `bytes` instead, when that is not 0.
    pub fn with_body(mut self, bytes: usize) -> Self {
        self.body = bytes;
        self
    }

    /// Keeps the value of a response header (named in lower case).
    pub fn watching(mut self, header: Option<String>) -> Self {
        self.watch = header;
        self
    }

    /// Requests of all classes of importance.
    pub fn mixed(mut self, mixed: bool) -> Self {
        self.mixed = mixed;
        self
    }

    /// The header to be kept.
    pub fn watch(&self) -> Option<&str> {
        self.watch.as_deref()
    }

    /// Appends the next request, to be sent on connection `conn`; says how important it is.
    pub fn write_next(&mut self, conn: usize, out: &mut Vec<u8>) -> Class {
        let turn = self.turn;
        let class = match turn % 10 {
            _ if !self.mixed => Class::Default,
            0 => Class::Critical,
            n if n % 2 == 0 => Class::Sheddable,
            _ => Class::Default,
        };
        self.turn = turn.wrapping_add(1);
        out.extend_from_slice(if self.body > 0 { b"POST " } else { b"GET " });
        match &self.path {
            Path::Fixed(path) => out.extend_from_slice(path.as_bytes()),
            Path::Rotating(rules) => {
                out.extend_from_slice(b"/agents/");
                number(turn % rules, out);
                out.extend_from_slice(b"/run");
            }
        }
        out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        out.extend_from_slice(HOST.as_bytes());
        out.extend_from_slice(b"\r\nuser-agent: pilotfish-bench\r\naccept: */*\r\nx-hash: k");
        match self.keys {
            Keys::PerConnection => number(conn, out),
            Keys::Rotating(keys) => number(turn % keys, out),
        }
        if self.mixed {
            out.extend_from_slice(b"\r\nagent-priority: ");
            out.extend_from_slice(class.word().as_bytes());
        }
        if self.body > 0 {
            out.extend_from_slice(b"\r\ncontent-type: application/octet-stream\r\ncontent-length: ");
            number(self.body, out);
        }
        out.extend_from_slice(b"\r\n\r\n");
        out.resize(out.len() + self.body, b'b');
        class
    }
}

fn number(mut n: usize, out: &mut Vec<u8>) {
    let from = out.len();
    loop {
        out.push(b'0' + (n % 10) as u8);
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out[from..].reverse();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_keys_go_round() {
        let mut requests = Requests::new(Path::Rotating(12), Keys::Rotating(2)).with_body(3);
        let mut out = Vec::new();
        for _ in 0..11 {
            out.clear();
            requests.write_next(5, &mut out);
        }
        let text = String::from_utf8(out).unwrap_or_default();
        assert!(text.starts_with("POST /agents/10/run HTTP/1.1\r\nhost: app.bench.local\r\n"), "{text}");
        assert!(text.contains("\r\nx-hash: k0\r\n"), "{text}");
        assert!(text.ends_with("content-length: 3\r\n\r\nbbb"), "{text}");
    }
}
