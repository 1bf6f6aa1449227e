//! Plain tables and safe text for terminals.

/// Whether a column's cells stand at its left or at its right edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// At the left.
    Left,
    /// At the right, as numbers are.
    Right,
}

/// Rows of cells whose columns are as wide as their widest cell.
#[derive(Debug)]
pub struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows; the names of its columns are its first line.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let header = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        Self { aligns: columns.iter().map(|(_, align)| *align).collect(), rows: vec![header] }
    }

    /// Adds a row. Cells that came from outside have to be [`printable`].
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Appends the table, each line after `indent`.
    pub fn render(&self, indent: &str, text: &mut String) {
        let widths: Vec<usize> = (0..self.aligns.len())
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max())
            .map(Option::unwrap_or_default)
            .collect();
        for row in &self.rows {
            let mut line = indent.to_owned();
            for ((cell, align), column) in row.iter().zip(&self.aligns).zip(&widths) {
                let padding = " ".repeat(column.saturating_sub(width(cell)));
                match align {
                    Align::Left => line.extend([cell, padding.as_str(), "  "]),
                    Align::Right => line.extend([padding.as_str(), cell, "  "]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
}

/// Text that came from outside, fit for a terminal: control and direction-changing characters become `�`, so that a name
/// can neither move the cursor nor pass itself off as another line; what is longer than `width_max` is cut.
pub fn printable(text: &str, width_max: usize) -> String {
    let shown: String = text.chars().map(|char| if is_harmful(char) { '\u{fffd}' } else { char }).collect();
    if width(&shown) <= width_max {
        return shown;
    }
    let mut cut = String::new();
    let mut used = 1;
    for char in shown.chars() {
        used += char_width(char);
        if used > width_max {
            break;
        }
        cut.push(char);
    }
    cut.push('…');
    cut
}

/// Columns that a terminal gives to this text.
fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// The blocks that matter of UAX #11 (East Asian width) and of combining marks; a wrong guess only bends a table.
fn char_width(char: char) -> usize {
    match u32::from(char) {
        0x300..=0x36f | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(u32::from(char),
            0xad | 0x61c | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb
                | 0xe0000..=0xe007f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_move_the_cursor_or_turn_the_line() {
        assert_eq!(
            printable("a\x1b[2J\r\nb\u{202e}c\u{9b}", 40),
            "a\u{fffd}[2J\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}"
        );
    }

    #[test]
    fn long_text_is_cut_to_its_width() {
        assert_eq!(printable("abcdefgh", 8), "abcdefgh");
        assert_eq!(printable("abcdefghi", 8), "abcdefg…");
        assert_eq!(printable("日本語日本語", 8), "日本語…");
    }

    #[test]
    fn columns_stand_below_each_other_with_wide_characters() {
        let mut table = Table::new(&[("WHO", Align::Left), ("N", Align::Right)]);
        table.row(vec!["日本".into(), "1".into()]);
        table.row(vec!["a".into(), "23".into()]);
        let mut text = String::new();
        table.render("> ", &mut text);
        assert_eq!(text, "> WHO    N\n> 日本   1\n> a     23\n");
    }
}
