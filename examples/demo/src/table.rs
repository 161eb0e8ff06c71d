//! The table that a person reads: aligned, coloured only on a terminal.

use std::io::IsTerminal;

/// One line: what was asked, the rule that matched, where it went, status, time.
#[derive(Debug, Clone)]
pub struct Row {
    /// In words and header names.
    pub asked: String,
    /// As the sidecar's access log names it.
    pub rule: String,
    /// Which agents answered, how often.
    pub went_to: String,
    /// HTTP status, or several.
    pub status: String,
    /// How long it took.
    pub time: String,
}

const HEADINGS: [&str; 5] = ["ASKED", "RULE", "WENT TO", "STATUS", "TIME"];
const BOLD: &str = "1";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const DIM: &str = "2";

/// True when stdout is a terminal and neither `NO_COLOR` nor `TERM=dumb` asks for plain text (no-color.org).
pub fn use_colour() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal()
        && !set("NO_COLOR")
        && std::env::var("TERM").is_ok_and(|term| term != "dumb")
}

/// The rows as text, each column as wide as its widest cell; ends with a newline.
pub fn render(rows: &[Row], colour: bool) -> String {
    let cells = |row: &Row| {
        [&row.asked, &row.rule, &row.went_to, &row.status, &row.time].map(|cell| cell.replace('\n', " "))
    };
    let mut widths = HEADINGS.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(cells(row)) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = line(&HEADINGS.map(String::from), &widths, [BOLD; 5], colour);
    for row in rows {
        let status = if row.status.starts_with(['2', '1']) { GREEN } else { YELLOW };
        text += &line(&cells(row), &widths, ["", DIM, "", status, ""], colour);
    }
    text
}

fn line(cells: &[String; 5], widths: &[usize; 5], colours: [&str; 5], colour: bool) -> String {
    let mut text = String::new();
    for (index, (cell, code)) in cells.iter().zip(colours).enumerate() {
        let padding = widths[index].saturating_sub(cell.chars().count());
        let padding = if index == cells.len() - 1 { String::new() } else { " ".repeat(padding + 2) };
        if colour && !code.is_empty() && !cell.is_empty() {
            text += &format!("\x1b[{code}m{cell}\x1b[0m{padding}");
        } else {
            text += &format!("{cell}{padding}");
        }
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(asked: &str, status: &str) -> Row {
        let text = |text: &str| text.to_string();
        Row {
            asked: text(asked),
            rule: text("r"),
            went_to: text("v1"),
            status: text(status),
            time: text("1 ms"),
        }
    }

    #[test]
    fn columns_begin_at_the_same_place_in_every_line() {
        let text = render(&[row("a", "200"), row("a longer question", "404")], false);
        let starts: Vec<_> = text.lines().map(|line| line.find("1 ms").or(line.find("TIME"))).collect();
        assert_eq!(starts, vec![starts[0]; 3], "{text}");
        assert!(text.lines().all(|line| line == line.trim_end()), "{text:?}");
    }

    #[test]
    fn without_colour_there_is_no_escape_and_with_it_the_text_is_the_same() {
        let rows = [row("a", "200"), row("b", "503")];
        let (plain, coloured) = (render(&rows, false), render(&rows, true));
        assert!(!plain.contains('\x1b'));
        let mut stripped = coloured.clone();
        for code in [BOLD, GREEN, YELLOW, DIM, "0"] {
            stripped = stripped.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(stripped, plain);
        assert!(coloured.contains("\x1b[33m503"), "a refusal stands out: {coloured:?}");
    }
}
