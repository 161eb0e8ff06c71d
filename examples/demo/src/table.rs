//! Tables that a person reads: aligned, coloured only on a terminal.

use std::io::IsTerminal;

/// Rows of five cells under headings.
#[derive(Debug, Clone)]
pub struct Table {
    /// Above each column.
    pub headings: [&'static str; 5],
    /// The column that says how it went: green when it begins with 1, 2 or `ok`, else yellow.
    pub verdict: usize,
    /// The rows.
    pub rows: Vec<[String; 5]>,
}

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

impl Table {
    /// The rows as text, each column as wide as its widest cell; ends with a newline.
    pub fn render(&self, colour: bool) -> String {
        let rows: Vec<[String; 5]> =
            self.rows.iter().map(|row| row.clone().map(|cell| cell.replace('\n', " "))).collect();
        let mut widths = self.headings.map(|heading| heading.chars().count());
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = line(&self.headings.map(String::from), &widths, [BOLD; 5], colour);
        for row in &rows {
            let mut colours = ["", DIM, "", "", ""];
            colours[self.verdict] =
                if row[self.verdict].starts_with(['2', '1', 'o']) { GREEN } else { YELLOW };
            text += &line(row, &widths, colours, colour);
        }
        text
    }
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

    fn table(rows: &[(&str, &str)]) -> Table {
        let rows = rows.iter().map(|(asked, status)| [asked, "r", "v1", status, "1 ms"].map(String::from));
        Table { headings: ["ASKED", "RULE", "WENT TO", "STATUS", "TIME"], verdict: 3, rows: rows.collect() }
    }

    #[test]
    fn columns_begin_at_the_same_place_in_every_line() {
        let text = table(&[("a", "200"), ("a longer question", "404")]).render(false);
        let starts: Vec<_> = text.lines().map(|line| line.find("1 ms").or(line.find("TIME"))).collect();
        assert_eq!(starts, vec![starts[0]; 3], "{text}");
        assert!(text.lines().all(|line| line == line.trim_end()), "{text:?}");
    }

    #[test]
    fn without_colour_there_is_no_escape_and_with_it_the_text_is_the_same() {
        let table = table(&[("a", "200"), ("b", "503")]);
        let (plain, coloured) = (table.render(false), table.render(true));
        assert!(!plain.contains('\x1b'));
        let mut stripped = coloured.clone();
        for code in [BOLD, GREEN, YELLOW, DIM, "0"] {
            stripped = stripped.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(stripped, plain);
        assert!(coloured.contains("\x1b[33m503"), "a refusal stands out: {coloured:?}");
    }
}
