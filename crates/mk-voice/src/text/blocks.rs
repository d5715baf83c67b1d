//! Markdown's blocks while they are being written: lines that belong together, and code that is not spoken.

use super::chunk::Chunker;
use super::lines::{Beginning, MAX_BEGINNING, beginning};

/// Takes a reply character by character and hands its text, without the marks of blocks, to a [`Chunker`].
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    line: Line,
    /// Where a cell of a row ended, if nothing of the next one has come.
    cell: Option<usize>,
    /// Where a line ended whose next one is not known yet.
    ended: Option<usize>,
    /// What is said of a block of code; empty for nothing.
    code: String,
}

/// The line that is being read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    /// Its kind is not known yet; it begins at `from`.
    Beginning { from: usize, text: String },
    /// Text.
    Text { row: bool },
    /// The rest of a line is not spoken, then code follows.
    Fence { mark: char, count: usize },
    /// A line of code. `text` is what may be the fence at its end.
    Code { mark: char, count: usize, text: Option<String> },
}

impl Blocks {
    /// `code` is said where there is a block of code.
    pub(super) fn new(code: String) -> Self {
        Self {
            line: Line::Beginning { from: 0, text: String::new() },
            cell: None,
            ended: None,
            code,
        }
    }

    /// Takes the character at byte `place` of the reply.
    pub(super) fn push(&mut self, c: char, place: usize, chunker: &mut Chunker) {
        match &mut self.line {
            Line::Beginning { text, .. } => {
                text.push(c);
                self.settle(chunker);
            }
            Line::Text { row } => {
                let row = *row;
                self.text(c, place, row, chunker);
            }
            Line::Fence { mark, count } => {
                if c == '\n' {
                    self.line =
                        Line::Code { mark: *mark, count: *count, text: Some(String::new()) };
                }
            }
            Line::Code { mark, count, text } => {
                if c == '\n' {
                    let fence = text.as_deref().is_some_and(|text| is_fence(text, *mark, *count));
                    self.line = if fence {
                        Line::Beginning { from: place + 1, text: String::new() }
                    } else {
                        Line::Code { mark: *mark, count: *count, text: Some(String::new()) }
                    };
                } else if let Some(line) = text {
                    line.push(c);
                    if c != *mark && !c.is_whitespace() || line.len() > MAX_BEGINNING {
                        *text = None;
                    }
                }
            }
        }
    }

    /// Ends the reply.
    pub(super) fn finish(&mut self, chunker: &mut Chunker) {
        if let Line::Beginning { from, text } = &mut self.line {
            let end = *from + text.len();
            text.push('\n');
            let kind = beginning(text);
            text.pop();
            if !matches!(kind, Beginning::Empty | Beginning::Mark(_)) {
                self.text_begins(end, false, chunker);
            }
        }
    }

    /// Looks whether the beginning of the line is enough.
    fn settle(&mut self, chunker: &mut Chunker) {
        let Line::Beginning { from, text } = &mut self.line else { return };
        let end = *from + text.len();
        let kind = match beginning(text) {
            // A line of blanks without end.
            Beginning::Open if text.len() > MAX_BEGINNING => Beginning::Empty,
            kind => kind,
        };
        match kind {
            Beginning::Open => return,
            Beginning::Text => {
                let joins = self.joins();
                return self.text_begins(end, joins, chunker);
            }
            _ => {}
        }
        let ended = self.ended.take().unwrap_or(*from);
        chunker.block_ends(ended);
        match kind {
            Beginning::Mark(bytes) => {
                *from += bytes;
                text.drain(..bytes);
                self.settle(chunker);
            }
            Beginning::Numbered => self.text_begins(end, false, chunker),
            Beginning::Row => {
                let skipped = text.len() - text.trim_start_matches([' ', '\t', '|']).len();
                *from += skipped;
                text.drain(..skipped);
                self.replay(true, chunker);
            }
            Beginning::Fence(mark, count) => {
                chunker.say(&self.code, *from);
                let over = text.ends_with('\n');
                self.line = match over {
                    true => Line::Code { mark, count, text: Some(String::new()) },
                    false => Line::Fence { mark, count },
                };
            }
            _ => self.line = Line::Beginning { from: end, text: String::new() },
        }
    }

    /// Whether the line goes on with the sentence of the line before it: one that begins in lower case does.
    fn joins(&self) -> bool {
        let Line::Beginning { text, .. } = &self.line else { return false };
        text.trim_start().starts_with(char::is_lowercase)
    }

    fn text_begins(&mut self, end: usize, joins: bool, chunker: &mut Chunker) {
        if let Some(ended) = self.ended.take() {
            if joins {
                chunker.push(' ', ended);
            } else {
                chunker.block_ends(ended);
            }
        }
        let Line::Beginning { from, text } = &mut self.line else { return };
        let trimmed = text.trim_start_matches([' ', '\t', '\u{a0}']).to_owned();
        *from = end - trimmed.len();
        *text = trimmed;
        self.replay(false, chunker);
    }

    /// Takes the beginning of the line as text.
    fn replay(&mut self, row: bool, chunker: &mut Chunker) {
        let line = std::mem::replace(&mut self.line, Line::Text { row });
        let Line::Beginning { from, text } = line else { return };
        for (at, c) in text.char_indices() {
            self.text(c, from + at, row, chunker);
        }
    }

    fn text(&mut self, c: char, place: usize, row: bool, chunker: &mut Chunker) {
        match c {
            '\n' if row => {
                self.cell = None;
                chunker.block_ends(place);
                self.line = Line::Beginning { from: place + 1, text: String::new() };
            }
            '\n' => {
                chunker.line_ends(place);
                self.ended = Some(place);
                self.line = Line::Beginning { from: place + 1, text: String::new() };
            }
            '|' if row => self.cell = Some(place),
            ' ' if self.cell.is_some() => {}
            _ => {
                if let Some(cell) = self.cell.take() {
                    chunker.cell_ends(cell);
                }
                chunker.push(c, place);
            }
        }
    }
}

/// Whether a line of code is the fence at its end.
fn is_fence(line: &str, mark: char, count: usize) -> bool {
    let line = line.trim();
    line.chars().count() >= count && line.chars().all(|c| c == mark)
}
