//! Finding what is largest, or where a sum is reached, without sorting the vocabulary.

use super::weight;

/// Logits that share one maximum: few enough that a chunk is cheap to look through, enough that the maxima are few.
pub(super) const CHUNK: usize = 64;
/// Below this many, sorting is cheaper than halving.
const SORT: usize = 64;

/// An id that may yet be drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Ascends from the largest logit to the smallest and, among equal ones, from the lowest id to the highest.
    pub(super) key: u64,
    /// Likelihood relative to the likeliest id: more than 0, at most 1.
    pub(super) weight: f32,
}

impl Candidate {
    fn new(id: u32, logit: f32, weight: f32) -> Self {
        // Adding 0 turns -0 to +0, which ties with it. Then IEEE's bit order, made monotone, and reversed.
        let bits = (logit + 0.0).to_bits();
        let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        Self { key: u64::from(!ascending) << 32 | u64::from(id), weight }
    }

    /// The likeliest of all.
    pub(super) fn certain(id: u32) -> Self {
        Self { key: id.into(), weight: 1.0 }
    }

    pub(super) fn id(&self) -> u32 {
        self.key as u32
    }

    /// Equal for equal logits, and lower for larger ones.
    fn rank(&self) -> u64 {
        self.key >> 32
    }
}

/// Sum of the weights, in units of [`weight::quantise`].
pub(super) fn units(candidates: &[Candidate]) -> u64 {
    candidates.iter().map(|c| weight::quantise(c.weight)).sum()
}

/// The largest of `values`, minus infinity for none. They are not NaN.
///
/// Sixteen independent maxima, so that the compiler uses vector registers.
pub(super) fn maximum(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (rows, rest) = values.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for row in rows {
        for (lane, value) in lanes.iter_mut().zip(row) {
            *lane = larger(*lane, *value);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

/// The first index of the value `max` in `logits`, whose chunks have the `maxima`.
pub(super) fn first_index(logits: &[f32], maxima: &[f32], max: f32) -> Option<u32> {
    let chunk = maxima.iter().position(|m| *m == max)? * CHUNK;
    let within = logits[chunk..].iter().position(|x| *x == max)?;
    u32::try_from(chunk + within).ok()
}

/// A bound that at least `k` logits reach: the k-th largest of the chunks' maxima, each a logit of its own. Minus
/// infinity where the chunks are too few to tell. `scratch` holds as many as `maxima`.
pub(super) fn lower_bound(maxima: &[f32], k: usize, scratch: &mut [f32]) -> f32 {
    if k == 0 || k > maxima.len() {
        return f32::NEG_INFINITY;
    }
    scratch.copy_from_slice(maxima);
    *scratch.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

/// Fills `candidates`, in id order, with the ids whose logit is at least `bound` and whose weight is at least a unit.
pub(super) fn gather(
    logits: &[f32],
    maxima: &[f32],
    bound: f32,
    (max, temperature): (f32, f32),
    candidates: &mut Vec<Candidate>,
) {
    candidates.clear();
    for (index, (chunk, chunk_max)) in logits.chunks(CHUNK).zip(maxima).enumerate() {
        if *chunk_max < bound {
            continue;
        }
        let mut weights = [0.0; CHUNK];
        for (weight, logit) in weights.iter_mut().zip(chunk) {
            *weight = weight::exp((logit - max) / temperature);
        }
        for (offset, (weight, logit)) in weights.iter().zip(chunk).enumerate() {
            if *logit >= bound && weight::quantise(*weight) > 0 {
                candidates.push(Candidate::new((index * CHUNK + offset) as u32, *logit, *weight));
            }
        }
    }
}

/// Keeps the `k` largest logits and whatever ties with the last of them.
pub(super) fn keep_top_k(candidates: &mut Vec<Candidate>, k: usize) {
    if k == 0 || k >= candidates.len() {
        return;
    }
    let last = candidates.select_nth_unstable_by_key(k - 1, |c| c.key).1.rank();
    candidates.retain(|c| c.rank() <= last);
}

/// Keeps the shortest run of largest logits whose weights reach `share` of all, at least one.
pub(super) fn keep_top_p(
    candidates: &mut Vec<Candidate>,
    share: f32,
    (max, temperature): (f32, f32),
) {
    // One correctly rounded f64 product: the same wherever it is computed.
    let limit = ((f64::from(share) * units(candidates) as f64).ceil() as u64).max(1);
    // Most of a vocabulary is far below what top-p gets to. Dropping it first leaves less to select from, and changes
    // nothing: what is dropped comes last in the order of selection.
    for depth in [3.0, 6.0, 9.0] {
        if candidates.len() <= 16 * SORT {
            break;
        }
        let deepest = Candidate::new(u32::MAX, max - depth * temperature, 0.0).key;
        let above = candidates.iter().filter(|c| c.key <= deepest);
        if above.map(|c| weight::quantise(c.weight)).sum::<u64>() >= limit {
            candidates.retain(|c| c.key <= deepest);
            break;
        }
    }
    let last = crossing(candidates, limit, |c| c.key);
    candidates.truncate(last + 1);
}

/// The index at which the running sum of weights, in order of `key`, reaches `limit` units. Reorders `candidates` so
/// that those up to this index are those with the lowest keys. The limit is at least 1 and at most the whole sum.
///
/// Linear in the number of candidates (expected): each half is looked into or passed over as a whole.
pub(super) fn crossing(
    candidates: &mut [Candidate],
    limit: u64,
    key: impl Fn(&Candidate) -> u64,
) -> usize {
    let (mut low, mut high, mut sum) = (0, candidates.len(), 0);
    if !candidates.is_sorted_by_key(&key) {
        while high - low > SORT {
            let middle = (high - low) / 2;
            candidates[low..high].select_nth_unstable_by_key(middle, &key);
            let half = units(&candidates[low..low + middle]);
            if sum + half >= limit {
                high = low + middle;
            } else {
                sum += half;
                low += middle;
            }
        }
        candidates[low..high].sort_unstable_by_key(&key);
    }
    let reaches = |c: &Candidate| {
        sum += weight::quantise(c.weight);
        sum >= limit
    };
    low + candidates[low..high].iter().position(reaches).unwrap_or(high - low - 1)
}
