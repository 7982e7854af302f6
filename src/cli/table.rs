//! Text in columns. What does not live here: what is in them.

use std::fmt::Write;

/// Between columns.
const GAP: usize = 2;

/// Rows with columns as wide as their longest cell, which `limits` bounds (0: no bound): longer ones go on in the next
/// line. Widths count characters.
pub(super) fn table(rows: &[Vec<String>], limits: &[usize]) -> String {
    let width = |column: usize| {
        let longest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        match limits.get(column).copied().unwrap_or(0) {
            0 => longest.unwrap_or(0),
            limit => longest.unwrap_or(0).min(limit),
        }
    };
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<Vec<String>> =
            row.iter().zip(&widths).map(|(cell, width)| wrap(cell, *width)).collect();
        for line in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
            write_line(&mut text, &cells, line, &widths);
        }
    }
    text
}

fn write_line(text: &mut String, cells: &[Vec<String>], line: usize, widths: &[usize]) {
    let start = text.len();
    for (cell, width) in cells.iter().zip(widths) {
        let part = cell.get(line).map_or("", String::as_str);
        let _ = write!(text, "{part:width$}{:GAP$}", "", width = *width);
    }
    text.truncate(start + text[start..].trim_end().len());
    text.push('\n');
}

/// Lines of at most `width` characters, broken at spaces where there are some.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last().map_or(0, |line| line.chars().count());
            let needed = word.len() + usize::from(line > 0);
            if line + needed <= width || width == 0 {
                break;
            }
            if line > 0 {
                lines.push(String::new());
                continue;
            }
            let rest = word.split_off(width);
            lines.push(String::new());
            let last = lines.len() - 2;
            lines[last].extend(word);
            word = rest;
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.extend(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn long_cells_go_on_in_the_next_line() {
        let rows = [row(&["a", "one two three", "x"]), row(&["bb", "abcdefghij", ""])];
        assert_eq!(table(&rows, &[0, 7]), "a   one two  x\n    three\nbb  abcdefg\n    hij\n");
        assert_eq!(table(&rows, &[]), "a   one two three  x\nbb  abcdefghij\n");
        assert_eq!(table(&[], &[]), "");
    }
}
