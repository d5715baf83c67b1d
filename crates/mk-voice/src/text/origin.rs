//! Where in a reply the words of a piece are.

/// Which bytes of the reply the spoken bytes of a piece stand for.
///
/// The place of a piece begins where the one before it ends, so what is not spoken (markup, code) belongs to the piece
/// after it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// In order; the first begins with the piece.
    runs: Vec<Run>,
    start: usize,
    end: usize,
}

/// A stretch of the spoken text. It lasts until the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    spoken: usize,
    reply: usize,
    /// Bytes that are the same in both; what comes after them is spoken in other words, or not spoken.
    same: usize,
}

impl Origin {
    /// The place of a piece of which nothing is known yet but where it begins.
    pub(super) fn new(start: usize) -> Self {
        Self { runs: Vec::new(), start, end: start }
    }

    /// The next spoken byte, `spoken`, is where `reply` is; `same` bytes are as written.
    pub(super) fn add(&mut self, spoken: usize, reply: usize, same: usize) {
        if let Some(last) = self.runs.last_mut()
            && last.spoken + last.same == spoken
            && last.reply + last.same == reply
            && last.same > 0
        {
            last.same += same;
            if same > 0 {
                return;
            }
        }
        self.runs.push(Run { spoken, reply, same });
    }

    /// The piece ends before byte `end` of the reply.
    pub(super) fn close(&mut self, end: usize) {
        self.end = end;
    }

    /// How far the reply is spoken when the first `spoken` bytes of the piece have been: a byte of the reply. Inside
    /// of words that are not as written ("five dollars" for "$5") it is the place before them; at their end, what is
    /// written there but not spoken (the end of a link) is counted in.
    pub fn reply_at(&self, spoken: usize) -> usize {
        let after = self.runs.partition_point(|run| run.spoken <= spoken);
        let Some(run) = after.checked_sub(1).and_then(|at| self.runs.get(at)) else {
            return self.start;
        };
        if spoken == 0 {
            return self.start;
        }
        run.reply + (spoken - run.spoken).min(run.same)
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
