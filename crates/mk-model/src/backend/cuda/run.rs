//! Runs of decode launches: what goes in, what is waited for, and how a run ends.

use std::ops::{ControlFlow, Range};

use half::bf16;
use mk_sys::abi::{self, MkPhase, MkSampling};
use mk_sys::device::Memory;

use super::CudaState;
use super::prefill::{BATCH, WORTHWHILE};
use super::raw::{self, DecodeCall, HandedIn};
use super::state::LAUNCH;
use crate::backend::{Input, Output, Readout, Rows, Run, Step, decode_on_host};
use crate::error::{Error, Result};
use crate::sampling::{Sampler, Sampling, Seen};

/// Positions that are read out of one launch: logits take `vocab_size` numbers each.
const READ_OUT: usize = 64;
/// Looks at the mailbox between two questions to the driver whether the launch is still there.
const LOOKS: u32 = 256;

/// How a launch ended.
enum Ended {
    /// Everything was made, or the caller wanted no more.
    Done,
    /// More equal logits than the device samples among: the host has to choose this token.
    Ties,
}

/// What a launch is to do, beside its input.
struct Launch<'a> {
    tokens: usize,
    head_from: usize,
    readout: Readout,
    sampling: MkSampling,
    stops: &'a [u32],
}

/// Sampling of a launch whose tokens nobody wants.
const GREEDY: MkSampling = MkSampling {
    temperature: 0.0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    top_k: 1,
    suppresses: 0,
    seed: 0,
    first_draw: 0,
};

impl CudaState {
    /// [`crate::backend::State::extend`], but for what an error leaves behind.
    pub(super) fn extend_by(&mut self, input: Input<'_>, readout: Readout) -> Result<Output> {
        let positions = input.positions(self.backend.config.hidden_size);
        let wanted = |rows| match rows {
            Rows::None => positions,
            Rows::Last => positions - 1,
            Rows::All => 0,
        };
        let (logits_from, hidden_from) = (wanted(readout.logits), wanted(readout.hidden));
        let head_from = logits_from.min(hidden_from);
        self.fill(input, 0..head_from)?;
        let mut output = Output::default();
        for start in (head_from..positions).step_by(READ_OUT) {
            let rows = start..positions.min(start + READ_OUT);
            let only = |from: usize| if rows.end > from { Rows::All } else { Rows::None };
            let readout =
                Readout { logits: only(logits_from), hidden: only(hidden_from), ..readout };
            let launch =
                Launch { tokens: rows.len(), head_from: 0, readout, sampling: GREEDY, stops: &[] };
            self.launch(slice(input, rows.clone(), self.backend.config.hidden_size), &launch)?;
            self.wait(0, &mut |_| ControlFlow::Continue(()))?;
            let part = self.read_out(rows.len(), readout)?;
            let width = [self.backend.config.vocab_size, self.backend.config.hidden_size];
            let skip = |from: usize| from.saturating_sub(rows.start);
            output.logits.extend_from_slice(
                part.logits.get(skip(logits_from) * width[0]..).unwrap_or_default(),
            );
            output.hidden.extend_from_slice(
                part.hidden.get(skip(hidden_from) * width[1]..).unwrap_or_default(),
            );
            self.len += rows.len();
        }
        Ok(output)
    }

    /// Appends these positions of `input` and reads nothing out.
    fn fill(&mut self, input: Input<'_>, range: Range<usize>) -> Result<()> {
        for start in range.clone().step_by(BATCH) {
            let rows = start..range.end.min(start + BATCH);
            let tokens = rows.len();
            let part = slice(input, rows, self.backend.config.hidden_size);
            if tokens >= WORTHWHILE {
                self.prefill(part)?;
                continue;
            }
            let launch = Launch {
                tokens,
                head_from: tokens,
                readout: Readout::NOTHING,
                sampling: GREEDY,
                stops: &[],
            };
            self.launch(part, &launch)?;
            self.wait(0, &mut |_| ControlFlow::Continue(()))?;
            self.len += tokens;
        }
        Ok(())
    }

    /// [`crate::backend::State::decode`], but for what an error leaves behind.
    pub(super) fn run(
        &mut self,
        run: &mut Run<'_>,
        each: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let (vocab, width) = (self.backend.config.vocab_size, self.backend.config.hidden_size);
        run.sampling.validate(vocab)?;
        if !samples_on_device(run.sampling) {
            return decode_on_host(self, vocab, run, each);
        }
        self.upload_suppressed(run.sampling)?;
        let positions = run.input.positions(width);
        // A few positions are handed in to the first launch.
        let filled = if positions > WORTHWHILE { positions - 1 } else { 0 };
        self.fill(run.input, 0..filled)?;
        let first = slice(run.input, filled..positions, width);
        let mut progress = Progress { run, each, made: 0, last: [0], ended: false };
        while !progress.ended {
            let (start, made) = (self.len, progress.made);
            let last = progress.last;
            let input = if made == 0 { first } else { Input::Tokens(&last) };
            let ended = self.advance(input, &mut progress)?;
            // Each token that was taken is the result of one position, the first of all that were handed in; what ran
            // beyond the last of them does not count.
            if progress.made > made {
                self.len = start + progress.made - made + input.positions(width) - 1;
            }
            if matches!(ended, Ended::Ties) && !progress.ended {
                let last = progress.last;
                let input = if progress.made == 0 { first } else { Input::Tokens(&last) };
                self.choose_on_host(input, &mut progress)?;
            }
        }
        Ok(())
    }

    /// One launch of a run: tokens until it ends, or as many as one launch makes.
    fn advance(&mut self, input: Input<'_>, progress: &mut Progress<'_, '_>) -> Result<Ended> {
        let Run { sampling, readout, stop_ids, max_tokens, .. } = *progress.run;
        if sampling.repetition_penalty != 1.0 {
            let bytes = bytemuck::cast_slice(progress.run.seen.words());
            self.stream.upload(&self.buffers.masks, 0, bytes)?;
        }
        let reads_out = readout.logits != Rows::None || readout.hidden != Rows::None;
        let tokens = if reads_out { 1 } else { LAUNCH.min(max_tokens - progress.made) };
        let sampling = on_device(sampling, progress.run.first_draw + progress.made as u64);
        let lead = input.positions(self.backend.config.hidden_size) - 1;
        let launch =
            Launch { tokens: lead + tokens, head_from: lead, readout, sampling, stops: stop_ids };
        self.launch(input, &launch)?;
        if !reads_out {
            return self.wait(tokens, &mut |token| progress.take(token, &Output::default()));
        }
        let mut token = None;
        let ended = self.wait(1, &mut |id| {
            token = Some(id);
            ControlFlow::Continue(())
        })?;
        if let Some(token) = token {
            let output = self.read_out(1, readout)?;
            let _ = progress.take(token, &output);
        }
        Ok(ended)
    }

    /// The next token of a run, sampled by the host.
    fn choose_on_host(&mut self, input: Input<'_>, progress: &mut Progress<'_, '_>) -> Result<()> {
        let readout = Readout { logits: Rows::Last, ..progress.run.readout };
        let output = self.extend_by(input, readout)?;
        let Run { sampling, seen, first_draw, .. } = &*progress.run;
        let draw = first_draw + progress.made as u64;
        let mut sampler = Sampler::new(sampling, self.backend.config.vocab_size)?;
        let token = sampler.sample(&output.logits, seen, draw)?;
        let _ = progress.take(token, &output);
        Ok(())
    }

    fn upload_suppressed(&mut self, sampling: &Sampling) -> Result<()> {
        if sampling.suppress.is_empty() {
            return Ok(());
        }
        let mut set = Seen::new(self.backend.config.vocab_size);
        sampling.suppress.iter().for_each(|id| set.insert(*id));
        let masks = &self.buffers.masks;
        Ok(self.stream.upload(masks, masks.len() / 2, bytemuck::cast_slice(set.words()))?)
    }

    /// Starts a launch at the end of the cache; its input counts when the caller says so.
    fn launch(&mut self, input: Input<'_>, launch: &Launch<'_>) -> Result<()> {
        let backend = &self.backend;
        let config = &backend.config;
        let handed_in = match input {
            Input::Tokens([first, rest @ ..]) => {
                if !rest.is_empty() {
                    self.stream.upload(&self.buffers.forced, 4, bytemuck::cast_slice(rest))?;
                }
                HandedIn::Ids(*first, 1 + rest.len())
            }
            Input::Tokens([]) => return Err(Error::EmptyInput),
            Input::Embeddings(rows) => {
                // Rounded and as they are, in one copy.
                let rounded = rows.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes());
                let both = rounded.chain(bytemuck::cast_slice(rows).iter().copied());
                self.stream.upload(&self.buffers.rows, 0, &both.collect::<Vec<u8>>())?;
                HandedIn::Rows(rows.len() / config.hidden_size)
            }
        };
        self.buffers.cache.reserve(&self.stream, self.len + launch.tokens, self.len)?;
        let made = launch.tokens - launch.head_from;
        let room = |rows: Rows, memory: &mut Option<Memory>, width: usize| -> Result<()> {
            let bytes = made * width * 4;
            if rows != Rows::None && memory.as_ref().is_none_or(|m| m.len() < bytes) {
                *memory = Some(backend.device.memory(bytes)?);
            }
            Ok(())
        };
        room(launch.readout.logits, &mut self.logits, config.vocab_size)?;
        room(launch.readout.hidden, &mut self.hidden, config.hidden_size)?;
        self.buffers.mailbox.clear(made);
        let call = DecodeCall {
            kernels: &backend.kernels,
            weights: &backend.weights,
            buffers: &self.buffers,
            head: launch.readout.head,
            layers: config.num_hidden_layers,
            vocab: config.vocab_size,
            eps: config.rms_norm_eps,
            position: self.len,
            tokens: launch.tokens,
            handed_in,
            head_from: launch.head_from,
            sampling: launch.sampling,
            stops: launch.stops,
            logits: self.logits.as_ref().filter(|_| launch.readout.logits != Rows::None),
            hidden: self.hidden.as_ref().filter(|_| launch.readout.hidden != Rows::None),
            fault: backend.options.fault.filter(|f| f.position == self.len).map(|f| f.wait),
        };
        Ok(raw::decode(&self.stream, &call)?)
    }

    /// Hands over up to `tokens` tokens as they come, and waits for the launch to end. It is told to where `each` wants
    /// no more; how it ends is then of no interest.
    fn wait(
        &mut self,
        tokens: usize,
        each: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Ended> {
        for index in 0..tokens {
            let Some(token) = self.arrival(index)? else { break };
            if each(token).is_break() {
                self.buffers.mailbox.cancel();
                self.stream.synchronize()?;
                return Ok(Ended::Done);
            }
        }
        self.stream.synchronize()?;
        match self.buffers.mailbox.failure() {
            None => Ok(Ended::Done),
            Some((phase, _)) if phase == MkPhase::MK_PHASE_TIES => Ok(Ended::Ties),
            Some((phase, token)) => Err(self.failure(phase, token)),
        }
    }

    /// The token of this index; `None` where the launch ends without it.
    fn arrival(&self, index: usize) -> Result<Option<u32>> {
        let mailbox = &self.buffers.mailbox;
        for look in 1_u32.. {
            if let Some(token) = mailbox.token(index) {
                return Ok(Some(token));
            }
            if mailbox.failure().is_some() || (look % LOOKS == 0 && self.stream.is_done()?) {
                break;
            }
            if look % LOOKS == 0 {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
        self.stream.synchronize()?;
        Ok(mailbox.token(index))
    }

    fn failure(&self, phase: u32, token: usize) -> Error {
        let position = self.len + token;
        let waited_for = match phase {
            MkPhase::MK_PHASE_NOT_FINITE => return Error::NotFinite { what: "logits", position },
            MkPhase::MK_PHASE_NOTHING => return Error::NothingToSample,
            MkPhase::MK_PHASE_X_ATTENTION => "the attention's input",
            MkPhase::MK_PHASE_QKV => "queries, keys and values",
            MkPhase::MK_PHASE_ATTENTION => "the attention's result",
            MkPhase::MK_PHASE_X_MLP => "the feed-forward's input",
            MkPhase::MK_PHASE_H => "the feed-forward's activations",
            MkPhase::MK_PHASE_X_HEAD => "the head's input",
            MkPhase::MK_PHASE_KEYS => "the largest logits",
            MkPhase::MK_PHASE_CANDIDATES => "the candidates to sample from",
            MkPhase::MK_PHASE_RING => "weights, keys and values from memory",
            _ => "something unknown",
        };
        Error::Device(format!(
            "the decode kernel gave up at position {position}: it waited too long for {waited_for}"
        ))
    }

    /// The numbers that a launch has left, of so many rows.
    fn read_out(&self, rows: usize, readout: Readout) -> Result<Output> {
        let config = &self.backend.config;
        let read = |wanted: Rows, memory: &Option<Memory>, width: usize| -> Result<Vec<f32>> {
            let mut numbers = Vec::new();
            if let Some(memory) = memory.as_ref().filter(|_| wanted != Rows::None) {
                numbers.resize(rows * width, 0.0);
                self.stream.download(memory, 0, bytemuck::cast_slice_mut(&mut numbers))?;
            }
            Ok(numbers)
        };
        Ok(Output {
            logits: read(readout.logits, &self.logits, config.vocab_size)?,
            hidden: read(readout.hidden, &self.hidden, config.hidden_size)?,
        })
    }
}

/// A run, and how far it has come.
struct Progress<'p, 'r> {
    run: &'p mut Run<'r>,
    each: &'p mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    made: usize,
    last: [u32; 1],
    ended: bool,
}

impl Progress<'_, '_> {
    /// Reports a token; breaks where it is the last one wanted.
    fn take(&mut self, token: u32, output: &Output) -> ControlFlow<()> {
        self.made += 1;
        self.last = [token];
        self.run.seen.insert(token);
        let Readout { logits, hidden, .. } = self.run.readout;
        let step = Step {
            token,
            logits: (logits != Rows::None).then_some(&output.logits),
            hidden: (hidden != Rows::None).then_some(&output.hidden),
        };
        let flow = (self.each)(step);
        self.ended = flow.is_break()
            || self.run.stop_ids.contains(&token)
            || self.made == self.run.max_tokens;
        if self.ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Some positions of an input.
fn slice(input: Input<'_>, rows: Range<usize>, width: usize) -> Input<'_> {
    match input {
        Input::Tokens(ids) => Input::Tokens(&ids[rows]),
        Input::Embeddings(all) => Input::Embeddings(&all[rows.start * width..rows.end * width]),
    }
}

/// Whether the kernel samples this way: greedily, or among few.
fn samples_on_device(sampling: &Sampling) -> bool {
    sampling.is_greedy() || (1..=abi::MK_MAX_TOP_K as usize).contains(&sampling.top_k)
}

fn on_device(sampling: &Sampling, first_draw: u64) -> MkSampling {
    MkSampling {
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        repetition_penalty: sampling.repetition_penalty,
        top_k: sampling.top_k as u32,
        suppresses: u32::from(!sampling.suppress.is_empty()),
        seed: sampling.seed,
        first_draw,
    }
}
