//! What the output is: a terminal with a width and colours, or a pipe.

use std::io::{self, IsTerminal, Write};

use pilotfish_config::text::push_sentence;

/// A colour that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Added, or well.
    Good,
    /// Needs a look.
    Warn,
    /// Removed, refused or broken.
    Bad,
    /// A heading.
    Strong,
    /// Of lesser interest.
    Dim,
    /// A place in a text.
    Place,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Strong => "1",
            Tone::Dim => "2",
            Tone::Place => "36",
        }
    }
}

/// How to write to an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Columns and rows of a terminal; none when it is a pipe or a file.
    pub size: Option<(usize, usize)>,
    /// Whether to use colours.
    pub colour: bool,
}

impl Terminal {
    /// Standard output: colours on a terminal, unless `NO_COLOR` is set (no-color.org) or `TERM` is `dumb`.
    pub fn stdout() -> Terminal {
        Terminal::of(&io::stdout())
    }

    /// Standard error.
    pub fn stderr() -> Terminal {
        Terminal::of(&io::stderr())
    }

    fn of<F: IsTerminal + std::os::fd::AsFd>(file: &F) -> Terminal {
        if !file.is_terminal() {
            return Terminal::PIPE;
        }
        let size = rustix::termios::tcgetwinsize(file).ok();
        let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        // A terminal that does not know its size (an expect script) is taken for the usual one.
        let size = size.filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or((80, 24));
        Terminal { size: Some(size), colour: !plain }
    }

    /// No terminal.
    pub const PIPE: Terminal = Terminal { size: None, colour: false };

    /// Whether a person looks at it as it is written.
    pub fn is_live(&self) -> bool {
        self.size.is_some()
    }

    /// The text in a colour, or as it is.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", tone.code())
        } else {
            text.into()
        }
    }
}

/// Writes to standard output; a reader that went away (`| head`) is no failure.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// What came from elsewhere, safe for a terminal: nothing in it moves the cursor, hides text or looks like other text.
/// Ends of lines stay if `lines`.
pub fn harmless(text: &str, lines: bool) -> String {
    let mut clean = String::with_capacity(text.len());
    for (at, line) in text.split('\n').enumerate() {
        if at > 0 {
            clean.push_str(if lines { "\n" } else { "\\n" });
        }
        push_sentence(&mut clean, line);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\r\u{202e}c\n", false), r"a\u001b[2Jb\r\u202ec\n");
        assert_eq!(harmless("a\nb\x07", true), "a\nb\\u0007");
    }

    #[test]
    fn colours_only_where_they_are_seen() {
        assert_eq!(Terminal::PIPE.paint(Tone::Bad, "x"), "x");
        let live = Terminal { size: Some((80, 24)), colour: true };
        assert_eq!(live.paint(Tone::Bad, "x"), "\x1b[31mx\x1b[0m");
    }
}
