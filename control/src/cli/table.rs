//! Tables that line up: widths as displayed, numbers on the right, cut to the terminal's width on a terminal only.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::terminal::{Terminal, Tone, harmless};

/// Between two columns.
const GAP: usize = 2;
/// A cut column keeps at least this much.
const NARROWEST: usize = 8;
/// A folded column is made as narrow as this before others are cut.
const FOLDED: usize = 30;

/// Which side the cells of a column are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl Cell {
    /// A text in a colour.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Cell {
        Cell { tone: Some(tone), ..Cell::from(text.into()) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        let text = harmless(&text.into(), false);
        Cell { text: if text.is_empty() { "-".into() } else { text }, tone: None }
    }
}

/// A table in the making.
#[derive(Debug, Default)]
pub struct Table {
    heads: Vec<(String, Side)>,
    rows: Vec<Vec<Cell>>,
    /// The last column has sentences: on a terminal they go on below rather than being cut.
    folds: bool,
}

impl Table {
    /// With these headings; `>` before one puts its column on the right.
    pub fn new(heads: &[&'static str]) -> Table {
        let side = |head: &&'static str| match head.strip_prefix('>') {
            Some(head) => (head.to_owned(), Side::Right),
            None => ((*head).to_owned(), Side::Left),
        };
        Table { heads: heads.iter().map(side).collect(), ..Table::default() }
    }

    /// With sentences in the last column, which nobody wants to see the beginning of only.
    pub fn folding(self) -> Table {
        Table { folds: true, ..self }
    }

    /// With headings that are known by now only, all on the left.
    pub fn with(heads: impl IntoIterator<Item = String>) -> Table {
        let heads = heads.into_iter().map(|head| (harmless(&head, false), Side::Left)).collect();
        Table { heads, ..Table::default() }
    }

    /// Adds a row; it has as many cells as there are headings.
    pub fn row<I: IntoIterator<Item = Cell>>(&mut self, cells: I) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table's lines, the headings first.
    pub fn lines(&self, terminal: &Terminal) -> Vec<String> {
        let widths = self.widths(terminal.size.map(|(columns, _)| columns));
        let heads =
            self.heads.iter().map(|(head, _)| Cell::toned(head.as_str(), Tone::Strong)).collect::<Vec<_>>();
        let rows = self.rows.iter().flat_map(|row| self.folded(row, &widths));
        std::iter::once(heads.clone()).chain(rows).map(|row| self.line(&row, &widths, terminal)).collect()
    }

    /// A row as the lines that it takes.
    fn folded(&self, row: &[Cell], widths: &[usize]) -> Vec<Vec<Cell>> {
        let (Some((last, others)), Some(width)) = (row.split_last().filter(|_| self.folds), widths.last())
        else {
            return vec![row.to_vec()];
        };
        let line = |(at, text): (usize, String)| {
            let nothing = Cell { text: String::new(), tone: None };
            let mut line = if at == 0 { others.to_vec() } else { vec![nothing; others.len()] };
            line.push(Cell { text, ..last.clone() });
            line
        };
        fold(&last.text, *width).into_iter().enumerate().map(line).collect()
    }

    /// The table as a text.
    pub fn print(&self, terminal: &Terminal) -> String {
        self.lines(terminal).iter().map(|line| format!("{line}\n")).collect()
    }

    /// Widths of the columns. Too wide for the terminal: the widest are cut until it fits.
    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self.heads.iter().map(|(head, _)| head.width()).collect();
        let least: Vec<usize> = widths.iter().map(|width| (*width).max(NARROWEST)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        let Some(limit) = limit else { return widths };
        let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        if let Some(last) = widths.len().checked_sub(1).filter(|_| self.folds) {
            let over = total(&widths).saturating_sub(limit);
            widths[last] = widths[last].saturating_sub(over).max(FOLDED.min(widths[last]));
        }
        while total(&widths) > limit {
            let cut = (0..widths.len()).filter(|at| widths[*at] > least[*at]).max_by_key(|at| widths[*at]);
            let Some(widest) = cut else { break };
            widths[widest] -= 1;
        }
        widths
    }

    fn line(&self, row: &[Cell], widths: &[usize], terminal: &Terminal) -> String {
        let mut line = String::new();
        for (at, (cell, (width, (_, side)))) in row.iter().zip(widths.iter().zip(&self.heads)).enumerate() {
            let text = cut(&cell.text, *width);
            let pad = " ".repeat(width.saturating_sub(text.width()));
            let text = cell.tone.map_or(text.clone(), |tone| terminal.paint(tone, &text));
            let last = at + 1 == widths.len();
            match side {
                Side::Right => line.push_str(&format!("{pad}{text}")),
                Side::Left if last => line.push_str(&text),
                Side::Left => line.push_str(&format!("{text}{pad}")),
            }
            if !last {
                line.push_str(&" ".repeat(GAP));
            }
        }
        line
    }
}

/// A text in lines of at most a width, broken between words where it can be.
fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut line = lines.pop().unwrap_or_default();
        if !line.is_empty() && line.width() + 1 + word.width() > width {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        for letter in word.chars() {
            if !line.is_empty() && line.width() + letter.width().unwrap_or(0) > width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(letter);
        }
        lines.push(line);
    }
    lines
}

/// The start of a text that fits, with `…` for what is missing.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.into();
    }
    let mut kept = String::new();
    let mut used = 1;
    for letter in text.chars() {
        used += letter.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(letter);
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", ">CALLS", "WHY"]);
        table.row(["chat".into(), "7".into(), "a reason that is rather long, as reasons are".into()]);
        table.row(["翻訳".into(), "12345".into(), "".into()]);
        table
    }

    #[test]
    fn columns_line_up_by_what_is_displayed() {
        assert_eq!(
            table().print(&Terminal::PIPE),
            "NAME  CALLS  WHY\n\
             chat      7  a reason that is rather long, as reasons are\n\
             翻訳  12345  -\n"
        );
    }

    #[test]
    fn only_a_terminal_cuts() {
        let narrow = Terminal { size: Some((30, 24)), colour: false };
        assert_eq!(
            table().print(&narrow),
            "NAME  CALLS  WHY\n\
             chat      7  a reason that is…\n\
             翻訳  12345  -\n"
        );
        let hopeless = Terminal { size: Some((3, 24)), colour: false };
        assert!(table().print(&hopeless).contains("a reaso…"));
    }

    #[test]
    fn sentences_go_on_below() {
        let mut table = Table::new(&["NAME", "WHY"]).folding();
        table.row([
            "chat".into(),
            "a reason that is rather long, as reasons are, and one-word-that-is-much-too-long-here".into(),
        ]);
        table.row(["web".into(), "".into()]);
        let narrow = Terminal { size: Some((36, 24)), colour: false };
        assert_eq!(
            table.print(&narrow),
            "NAME  WHY\n\
             chat  a reason that is rather long,\n      \
             as reasons are, and\n      \
             one-word-that-is-much-too-long\n      \
             -here\n\
             web   -\n"
        );
        assert_eq!(table.print(&Terminal::PIPE).lines().count(), 3);
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(&["A", "B"]);
        table.row([Cell::toned("x", Tone::Bad), "y".into()]);
        let live = Terminal { size: Some((80, 24)), colour: true };
        assert_eq!(table.print(&live), "\x1b[1mA\x1b[0m  \x1b[1mB\x1b[0m\n\x1b[31mx\x1b[0m  y\n");
    }
}
