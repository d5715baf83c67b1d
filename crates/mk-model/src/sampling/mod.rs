//! From logits to one token id, in a way that every backend can reproduce to the bit.
//!
//! # What is computed
//!
//! In the order of transformers' `generate` (`generation/logits_process.py`), for the logits `x` of one position:
//!
//! 1. **Repetition penalty** `p`: each id of [`Seen`], once: `x / p` where `x > 0`, else `x * p`. A quotient beyond
//!    f32 becomes the largest f32.
//! 2. **Suppression**: the listed ids get minus infinity.
//! 3. **Greedy** (temperature 0) ends here with the lowest id among the largest logits, as `torch.argmax` does.
//! 4. **Top-k**: ids below the k-th largest logit are removed; all that tie with it stay.
//! 5. **Weights**: `w = exp((x - max) / temperature)`, the maximum taken before any removal (it is never removed).
//!    Top-k does not depend on a positive temperature, so it may go first; and subtracting first means that no
//!    temperature overflows.
//! 6. **Top-p**: from the largest logit down (among equal ones from the lowest id up), ids are kept until their sum
//!    reaches `top_p` of the sum over what top-k left; at least one is kept. That is `TopPLogitsWarper`, except that
//!    among equal logits torch leaves the order open.
//! 7. **Min-p**: ids with `w < min_p` are removed. Dividing both sides of `MinPLogitsWarper`'s comparison by the
//!    largest probability leaves exactly this, because the largest `w` is 1.
//! 8. **Draw**: the first id, in id order, at which the running sum of the weights exceeds `u` times their sum, with
//!    `u = rng::uniform(seed, draw)`.
//!
//! # What another implementation must do to agree
//!
//! No floating-point sum occurs. A weight is cut to a whole number of 2<sup>-39</sup> before it is added
//! ([`weight::quantise`]), so the sums of steps 6 and 8 are sums of integers: *their order does not matter*, and a
//! parallel reduction on a GPU gives the same total as a loop. [`weight::exp`] is built of f32 additions and
//! multiplications, each rounded to nearest on its own (in CUDA `__fadd_rn`, `__fmul_rn`: no contraction to FMA), in
//! a stated order. Division is IEEE's (`__fdiv_rn`). Then equal logits give equal tokens, whatever the machine.
//!
//! The cut means that an id less likely than 2<sup>-39</sup> of the likeliest is never drawn. A 24-bit `u` could
//! not tell it from its neighbour either.
//!
//! The draw is counter-based: it depends on the seed and its own number, not on how many came before, so a sequence
//! may be resumed or sampled in parts and get the same tokens.

mod params;
mod sampler;
mod seen;
mod select;
pub mod weight;

pub use params::Sampling;
pub use sampler::{Sampler, argmax};
pub use seen::Seen;
