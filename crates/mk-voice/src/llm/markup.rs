//! What a model writes between markers and not for the ear: thoughts, and the calls of tools.

/// A marker that begins what is hidden, and the one that ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) begin: &'static str,
    pub(super) end: &'static str,
}

/// What Qwen3 and others put around their thoughts.
pub(super) const THOUGHT: Span = Span { begin: "<think>", end: "</think>" };
/// What Qwen3 puts around the call of a tool.
pub(super) const TOOL_CALL: Span = Span { begin: "<tool_call>", end: "</tool_call>" };

/// Bytes of one hidden text that are kept; what is longer is cut there.
const MOST: usize = 1 << 20;

/// Takes a text that comes in pieces apart: what is between markers, and the rest. What may be the beginning of a
/// marker is held back until it is known. Space before the first word is dropped, and so is that after a marker.
#[derive(Debug)]
pub(super) struct Markup {
    spans: &'static [Span],
    /// Not decided yet.
    held: String,
    /// In what the text is now, and what is hidden of it so far.
    inside: Option<(Span, String)>,
    /// Whether space is to be dropped.
    trim: bool,
}

/// A part of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// For the ear; not empty.
    Text(String),
    /// What was between the markers.
    Hidden(Span, String),
}

impl Markup {
    pub(super) fn new(spans: &'static [Span]) -> Self {
        Self { spans, held: String::new(), inside: None, trim: true }
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &str) -> Vec<Part> {
        self.held.push_str(piece);
        let mut parts = Vec::new();
        while self.step(&mut parts) {}
        parts
    }

    /// Ends the text: what looked like the beginning of a marker is none; what a marker began ends here.
    pub(super) fn finish(&mut self) -> Vec<Part> {
        let rest = std::mem::take(&mut self.held);
        let mut parts = Vec::new();
        match self.inside.take() {
            None => self.tell(&rest, &mut parts),
            Some((span, hidden)) => parts.push(Part::Hidden(span, hidden + &rest)),
        }
        parts
    }

    /// Whether a marker was found, so that there may be another.
    fn step(&mut self, parts: &mut Vec<Part>) -> bool {
        match &mut self.inside {
            None => {
                let found =
                    self.spans.iter().filter_map(|span| Some((self.held.find(span.begin)?, *span)));
                if let Some((at, span)) = found.min_by_key(|(at, _)| *at) {
                    let text: String = self.held.drain(..at + span.begin.len()).collect();
                    self.tell(&text[..at], parts);
                    self.inside = Some((span, String::new()));
                    return true;
                }
                let begun = self.spans.iter().map(|span| overlap(&self.held, span.begin)).max();
                let certain = self.held.len() - begun.unwrap_or(0);
                let text: String = self.held.drain(..certain).collect();
                self.tell(&text, parts);
            }
            Some((span, hidden)) => {
                let end = self.held.find(span.end);
                let certain = end.unwrap_or(self.held.len() - overlap(&self.held, span.end));
                let room = MOST.saturating_sub(hidden.len());
                let keep = self.held.floor_char_boundary(certain.min(room));
                hidden.push_str(&self.held[..keep]);
                self.held.drain(..certain + end.map_or(0, |_| span.end.len()));
                if end.is_some()
                    && let Some((span, hidden)) = self.inside.take()
                {
                    parts.push(Part::Hidden(span, hidden));
                    self.trim = true;
                    return true;
                }
            }
        }
        false
    }

    fn tell(&mut self, text: &str, parts: &mut Vec<Part>) {
        let text = if self.trim { text.trim_start() } else { text };
        if !text.is_empty() {
            self.trim = false;
            parts.push(Part::Text(text.to_owned()));
        }
    }
}

/// Bytes at the end of `text` that are the beginning of `marker`.
fn overlap(text: &str, marker: &str) -> usize {
    let longest = text.len().min(marker.len() - 1);
    let fits = |length: &usize| text.as_bytes().ends_with(&marker.as_bytes()[..*length]);
    (1..=longest).rev().find(fits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPANS: &[Span] = &[THOUGHT, TOOL_CALL];

    fn apart<'a>(pieces: impl IntoIterator<Item = &'a str>) -> (String, Vec<String>) {
        let mut markup = Markup::new(SPANS);
        let mut parts: Vec<Part> =
            pieces.into_iter().flat_map(|piece| markup.push(piece)).collect();
        parts.extend(markup.finish());
        let (mut text, mut hidden) = (String::new(), Vec::new());
        for part in parts {
            match part {
                Part::Text(more) => text += &more,
                Part::Hidden(_, more) => hidden.push(more),
            }
        }
        (text, hidden)
    }

    #[test]
    fn thoughts_and_calls_are_taken_out() {
        let text = "<think>\nHm.</think>\n\nIt <b>is a < b. \n<tool_call>\n{}\n</tool_call>\nSo.";
        let (text, hidden) = apart([text]);
        assert_eq!(text, "It <b>is a < b. \nSo.");
        assert_eq!(hidden, ["\nHm.", "\n{}\n"]);
    }

    #[test]
    fn text_is_not_held_back_without_need() {
        let mut markup = Markup::new(SPANS);
        assert_eq!(markup.push("a <t"), [Part::Text("a ".into())]);
        assert_eq!(markup.push("able>"), [Part::Text("<table>".into())]);
        assert_eq!(markup.finish(), []);
    }

    #[test]
    fn what_is_begun_and_not_ended() {
        assert_eq!(apart(["Yes <thi"]), ("Yes <thi".into(), vec![]));
        assert_eq!(apart(["Yes. <think>No</thi"]), ("Yes. ".into(), vec!["No</thi".into()]));
    }

    #[test]
    fn a_thought_without_an_end_takes_no_memory() {
        let mut markup = Markup::new(SPANS);
        markup.push("<think>");
        for _ in 0..300 {
            markup.push(&"ö".repeat(5_000));
        }
        let [Part::Hidden(_, hidden)] = &markup.finish()[..] else { panic!("one thought") };
        assert!(hidden.len() <= MOST && hidden.len() > MOST / 2);
    }

    proptest! {
        #[test]
        fn how_it_is_cut_makes_no_difference(
            bits in prop::collection::vec(prop::sample::select(vec![
                "<think>", "</think>", "<tool_call>", "</tool_call>", "<", "<th", "ink>", " ", "\n", "a", "é", "</",
            ]), 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let whole = bits.concat();
            let mut places: Vec<usize> =
                cuts.iter().map(|cut| whole.floor_char_boundary(cut.index(whole.len() + 1))).collect();
            places.extend([0, whole.len()]);
            places.sort_unstable();
            let pieces = places.windows(2).map(|ends| &whole[ends[0]..ends[1]]);
            prop_assert_eq!(apart(pieces), apart([whole.as_str()]));
        }
    }
}
