//! Comma-separated values (RFC 4180): quoted fields may hold commas, doubled quotes and line breaks.

/// A row and the line it starts on, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Line it starts on.
    pub line: usize,
    /// Fields without their quotes.
    pub fields: Vec<String>,
}

/// Parses the non-empty rows of `text`.
pub fn parse(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = Row {
        line: 1,
        fields: Vec::new(),
    };
    let (mut field, mut quoted, mut line) = (String::new(), false, 1);
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.fields.push(std::mem::take(&mut field)),
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                row.fields.push(std::mem::take(&mut field));
                rows.push(std::mem::replace(
                    &mut row,
                    Row {
                        line,
                        fields: Vec::new(),
                    },
                ));
            }
            other => field.push(other),
        }
    }
    row.fields.push(field);
    rows.push(row);
    rows.retain(|row| row.fields.iter().any(|f| !f.trim().is_empty()));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_line_breaks_and_endings() {
        let rows = parse("\u{feff}file,class\r\n\"a,\"\"b\"\"\n.jpg\",3\n\n,\nlast,4");
        let got: Vec<_> = rows.iter().map(|r| (r.line, r.fields.join("|"))).collect();
        let expected = [(1, "file|class"), (2, "a,\"b\"\n.jpg|3"), (6, "last|4")];
        assert_eq!(got, expected.map(|(line, row)| (line, row.to_owned())));
        assert!(parse("").is_empty());
    }
}
