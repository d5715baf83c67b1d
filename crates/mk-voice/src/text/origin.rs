//! Where in a reply the words of a piece are.

/// Which bytes of the reply the spoken bytes of a piece stand for.
///
/// A piece begins where the one before it ends, so what is not spoken (markup, code) belongs to the piece after it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    runs: Vec<Run>,
    length: usize,
    start: usize,
    end: usize,
}

/// A stretch of the spoken text. It lasts until the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    spoken: usize,
    reply: usize,
    /// Whether each byte stands for one of the reply, rather than all of them for the same.
    as_written: bool,
}

impl Origin {
    /// The origin of a piece at `start..end` whose spoken bytes stand for those of `at`, in order.
    pub(super) fn new(start: usize, end: usize, at: &[usize]) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for (spoken, &reply) in at.iter().enumerate() {
            if let Some(last) = runs.last_mut() {
                let bytes = spoken - last.spoken;
                if last.as_written && reply == last.reply + bytes
                    || !last.as_written && reply == last.reply
                {
                    continue;
                }
                if bytes == 1 && reply == last.reply {
                    last.as_written = false;
                    continue;
                }
            }
            runs.push(Run { spoken, reply, as_written: true });
        }
        Self { runs, length: at.len(), start, end }
    }

    /// How far the reply is spoken when the first `spoken` bytes of the piece have been: a byte of the reply. Inside
    /// of words that are not as written ("five dollars" for "$5") that is the place before them; at their end, what
    /// is written there but not spoken (the target of a link) is counted in.
    pub fn reply_at(&self, spoken: usize) -> usize {
        if spoken == 0 {
            return self.start;
        }
        if spoken >= self.length {
            return self.end;
        }
        let after = self.runs.partition_point(|run| run.spoken <= spoken);
        match after.checked_sub(1).and_then(|at| self.runs.get(at)) {
            Some(run) if run.as_written => run.reply + (spoken - run.spoken),
            Some(run) => run.reply,
            None => self.start,
        }
    }

    /// The first byte of the piece in the reply.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The byte after the last of the piece in the reply.
    pub fn end(&self) -> usize {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_inside_of_other_words_is_before_them() {
        // "It is $5 [now](x)" spoken as "It is five now".
        let at = [0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 8, 10, 11, 12];
        let origin = Origin::new(0, 17, &at);
        assert_eq!(origin.runs.len(), 4);
        for (spoken, &place) in at.iter().enumerate() {
            assert_eq!(origin.reply_at(spoken), place);
        }
        assert_eq!(origin.reply_at(14), 17);
        assert_eq!(origin.reply_at(usize::MAX), 17);
        assert_eq!((origin.start(), origin.end()), (0, 17));
    }

    #[test]
    fn the_first_byte_stands_for_all_that_is_skipped_before_it() {
        let origin = Origin::new(10, 40, &[30, 31]);
        assert_eq!([0, 1, 2].map(|spoken| origin.reply_at(spoken)), [10, 31, 40]);
    }
}
