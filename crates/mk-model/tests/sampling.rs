//! The sampler against transformers' logits processors, and what must hold for any logits and parameters.

use mk_model::Error;
use mk_model::sampling::{Sampler, Sampling, Seen};
use proptest::prelude::*;
use serde::Deserialize;

/// Rows of Qwen3's output head.
const VOCABULARY: usize = 151_936;

/// Written by `xtask/reference/sampling.py`, which says what the fields mean.
#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    logits: Vec<Option<f32>>,
    history: Vec<u32>,
    suppress: Vec<u32>,
    repetition_penalty: f32,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    probs: Vec<f32>,
}

fn seen(vocab_size: usize, ids: impl IntoIterator<Item = u32>) -> Seen {
    let mut seen = Seen::new(vocab_size);
    ids.into_iter().for_each(|id| seen.insert(id));
    seen
}

fn pick(sampling: &Sampling, logits: &[f32], draw: u64) -> Result<u32, Error> {
    Sampler::new(sampling, logits.len())?.sample(logits, &Seen::new(logits.len()), draw)
}

#[test]
fn as_transformers() {
    let goldens: Goldens = serde_json::from_str(include_str!("goldens/sampling.json")).unwrap();
    assert!(goldens.cases.len() >= 40);
    for case in goldens.cases {
        let logits: Vec<f32> = case.logits.iter().map(|x| x.unwrap_or(f32::NEG_INFINITY)).collect();
        let sampling = Sampling {
            temperature: case.temperature,
            top_k: case.top_k,
            top_p: case.top_p,
            min_p: case.min_p,
            repetition_penalty: case.repetition_penalty,
            suppress: case.suppress,
            seed: 0,
        };
        let seen = seen(logits.len(), case.history);
        let mut sampler = Sampler::new(&sampling, logits.len()).unwrap();
        let probabilities = sampler.probabilities(&logits, &seen).unwrap();
        let likeliest = case.probs.iter().copied().fold(0.0, f32::max);
        for (id, (found, expected)) in probabilities.iter().zip(&case.probs).enumerate() {
            assert!((found - expected).abs() < 1e-5, "{}: id {id}: {found} {expected}", case.name);
            // Ids that are kept, but are less likely than a unit of the fixed-point weights, are never drawn.
            let drawable = *expected >= likeliest * 2.0_f32.powi(-39);
            assert_eq!(*found > 0.0, drawable, "{}: id {id}: {found} {expected}", case.name);
        }

        let greedy = Sampling { temperature: 0.0, ..sampling };
        let mut greedy = Sampler::new(&greedy, logits.len()).unwrap();
        let token = greedy.sample(&logits, &seen, 0).unwrap() as usize;
        assert_eq!(case.probs[token], likeliest, "{}: greedy", case.name);
    }
}

#[test]
fn ties_go_to_the_lowest_id() {
    let logits = [1.0, 3.0, -0.0, 3.0, 3.0, 0.0];
    assert_eq!(pick(&Sampling::default(), &logits, 0).unwrap(), 1);
    // Top-p alone decides among equal logits; it agrees with greedy.
    let narrow = Sampling { temperature: 1.0, top_p: 1e-6, ..Sampling::default() };
    assert!((0..50).all(|draw| pick(&narrow, &logits, draw).unwrap() == 1));
    // Top-k keeps them all, and -0 ties with 0.
    let top = Sampling { temperature: 1.0, top_k: 5, ..Sampling::default() };
    let mut sampler = Sampler::new(&top, 6).unwrap();
    let kept = sampler.probabilities(&logits, &Seen::new(6)).unwrap();
    assert!(kept.iter().all(|p| *p > 0.0), "{kept:?}");
}

#[test]
fn what_cannot_be_sampled_is_an_error() {
    let never = f32::NEG_INFINITY;
    for temperature in [0.0, 1.0] {
        let plain = Sampling { temperature, ..Sampling::default() };
        let suppressed = Sampling { suppress: vec![0, 1], ..plain.clone() };
        assert!(matches!(pick(&plain, &[never, never], 0), Err(Error::NothingToSample)));
        assert!(matches!(pick(&plain, &[], 0), Err(Error::NothingToSample)));
        assert!(matches!(pick(&suppressed, &[1.0, 2.0], 0), Err(Error::NothingToSample)));
        assert_eq!(pick(&suppressed, &[1.0, 2.0, -50.0], 0).unwrap(), 2);
        for bad in [f32::NAN, f32::INFINITY] {
            // Also where the id is suppressed, and could not be chosen.
            let error = pick(&suppressed, &[1.0, bad, 0.0], 7).unwrap_err();
            assert!(matches!(error, Error::NotFinite { what: "logits", position: 7 }), "{error}");
        }
        let mut sampler = Sampler::new(&plain, 3).unwrap();
        for (logits, seen) in [(&[0.0; 2][..], Seen::new(3)), (&[0.0; 3], Seen::new(4))] {
            assert!(matches!(sampler.sample(logits, &seen, 0), Err(Error::Sampling { .. })));
        }
    }
}

#[test]
fn a_not_a_number_is_found_wherever_it_stands() {
    let mut sampler = Sampler::new(&Sampling::default(), 200).unwrap();
    let seen = Seen::new(200);
    let mut logits = vec![0.0; 200];
    for id in 0..200 {
        logits[id] = f32::NAN;
        assert!(matches!(sampler.sample(&logits, &seen, 0), Err(Error::NotFinite { .. })));
        logits[id] = 0.0;
    }
}

/// Every id can be the likeliest, and every id can be drawn where it has the probability, top-k and top-p included.
#[test]
fn no_id_is_out_of_reach() {
    let seen = Seen::new(VOCABULARY);
    let mut logits = vec![-1.0; VOCABULARY];
    let greedy = Sampling::default();
    let drawn = Sampling { temperature: 0.1, top_k: 20, top_p: 0.95, ..greedy.clone() };
    let mut samplers = [greedy, drawn].map(|s| Sampler::new(&s, VOCABULARY).unwrap());
    // All ids at the edges of chunks of any power of two, and a stride over the others: a whole sweep takes minutes.
    let edges = (0..VOCABULARY).filter(|id| id % 4096 < 2 || id % 4096 > 4093);
    for id in edges.chain((0..VOCABULARY).step_by(151)).chain(VOCABULARY - 70..VOCABULARY) {
        logits[id] = 4.0;
        for sampler in &mut samplers {
            assert_eq!(sampler.sample(&logits, &seen, id as u64).unwrap(), id as u32);
        }
        logits[id] = -1.0;
    }
}

/// Over a uniform distribution each draw lands where its random number says: id = floor(u * vocabulary).
#[test]
fn a_uniform_distribution_is_drawn_evenly() {
    let logits = vec![0.5; VOCABULARY];
    let seen = Seen::new(VOCABULARY);
    let sampling = Sampling { temperature: 0.7, seed: 3, ..Sampling::default() };
    let mut sampler = Sampler::new(&sampling, VOCABULARY).unwrap();
    for draw in 0..100 {
        let u = f64::from(mk_model::rng::uniform(3, draw.into()));
        let expected = (u * VOCABULARY as f64).floor() as u32;
        assert_eq!(sampler.sample(&logits, &seen, draw).unwrap(), expected);
    }
}

/// A chi-square test with a fixed seed, so its verdict never changes.
#[test]
fn draws_have_the_frequencies_of_the_probabilities() {
    const DRAWS: u64 = 40_000;
    let logits: Vec<f32> = (0..40).map(|id| ((id * 7) % 40) as f32 / 10.0).collect();
    let sampling = Sampling { temperature: 1.0, top_k: 30, seed: 11, ..Sampling::default() };
    let mut sampler = Sampler::new(&sampling, 40).unwrap();
    let seen = Seen::new(40);
    let mut counts = [0_u32; 40];
    for draw in 0..DRAWS {
        counts[sampler.sample(&logits, &seen, draw).unwrap() as usize] += 1;
    }
    let probabilities = sampler.probabilities(&logits, &seen).unwrap();
    let mut chi_square = 0.0;
    for (count, p) in counts.into_iter().zip(probabilities) {
        if p == 0.0 {
            assert_eq!(count, 0);
            continue;
        }
        let expected = f64::from(p) * DRAWS as f64;
        chi_square += (f64::from(count) - expected).powi(2) / expected;
    }
    // 29 degrees of freedom: 58.3 is passed once in a thousand seeds.
    assert!(chi_square < 58.3, "{chi_square}");
}

fn any_logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -10.0_f32..10.0,
        2 => (-4_i8..4).prop_map(f32::from),
        1 => Just(f32::NEG_INFINITY),
        1 => prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO,
    ]
}

fn any_positive() -> impl Strategy<Value = f32> {
    prop_oneof![
        0.05_f32..3.0,
        prop::num::f32::POSITIVE | prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL
    ]
}

prop_compose! {
    fn any_sampling()(
        temperature in prop_oneof![any_positive(), Just(0.0)],
        top_k in prop_oneof![Just(0), 1_usize..300],
        top_p in prop_oneof![Just(1.0), 0.0_f32..=1.0],
        min_p in prop_oneof![Just(0.0), 0.0_f32..=1.0],
        repetition_penalty in prop_oneof![Just(1.0), any_positive()],
        suppress in prop::collection::vec(0_u32..100, 0..20),
        seed: u64,
    ) -> Sampling {
        Sampling { temperature, top_k, top_p, min_p, repetition_penalty, suppress, seed }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// For any valid parameters and legal logits: a token that may be had, the same each time; or nothing is left.
    #[test]
    fn a_token_of_the_support_or_a_plain_no(
        sampling in any_sampling(),
        logits in prop::collection::vec(any_logit(), 100..400),
        history in prop::collection::vec(0_u32..400, 0..60),
        draw: u64,
    ) {
        let seen = seen(logits.len(), history);
        let mut sampler = Sampler::new(&sampling, logits.len()).unwrap();
        match sampler.sample(&logits, &seen, draw) {
            Ok(token) => {
                let probabilities = sampler.probabilities(&logits, &seen).unwrap();
                prop_assert!(probabilities[token as usize] > 0.0);
                let sum: f64 = probabilities.iter().copied().map(f64::from).sum();
                prop_assert!((sum - 1.0).abs() < 1e-5, "sum {}", sum);
                prop_assert!(!sampling.suppress.contains(&token));
                let again = Sampler::new(&sampling, logits.len()).unwrap().sample(&logits, &seen, draw);
                prop_assert_eq!(again.unwrap(), token);
                for (p, x) in probabilities.iter().zip(&logits) {
                    prop_assert!(*p == 0.0 || x.is_finite());
                }
            }
            Err(error) => {
                // Multiplying a negative logit by a huge penalty is the one other way to minus infinity.
                prop_assert!(matches!(error, Error::NothingToSample), "{}", error);
                let left = (0..).zip(&logits).any(|(id, x)| {
                    let penalised = sampling.repetition_penalty != 1.0 && seen.contains(id);
                    x.is_finite() && !penalised && !sampling.suppress.contains(&id)
                });
                prop_assert!(!left);
            }
        }
    }

    /// The filters by their definitions, with a sort; large lists take other paths than the goldens' small ones.
    #[test]
    fn filters_keep_what_their_definition_says(
        steps in prop::collection::vec(-60_i16..60, 3000..6000),
        scale in prop_oneof![Just(0.01_f32), Just(0.1), Just(0.5)],
        top_k in prop_oneof![Just(0_usize), 1_usize..100, 1_usize..6000],
        top_p in prop_oneof![Just(1.0_f32), 0.01_f32..0.999],
    ) {
        let logits: Vec<f32> = steps.iter().map(|s| f32::from(*s) * scale).collect();
        let sampling = Sampling { temperature: 1.0, top_k, top_p, ..Sampling::default() };
        let mut sampler = Sampler::new(&sampling, logits.len()).unwrap();
        let found = sampler.probabilities(&logits, &Seen::new(logits.len())).unwrap();

        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
        if (1..order.len()).contains(&top_k) {
            let last = logits[order[top_k - 1]];
            order.retain(|id| logits[*id] >= last);
        }
        let max = f64::from(logits[order[0]]);
        let weight = |id: usize| (f64::from(logits[id]) - max).exp();
        let total: f64 = order.iter().map(|id| weight(*id)).sum();
        let mut before = 0.0;
        for id in order {
            // Within rounding of the threshold either answer is right.
            let distance = before - f64::from(top_p) * total;
            if top_p < 1.0 && distance.abs() > 1e-4 * total {
                prop_assert_eq!(found[id] > 0.0, distance < 0.0, "id {}", id);
            }
            prop_assert!(top_p < 1.0 || found[id] > 0.0 || weight(id) < 1e-11);
            before += weight(id);
        }
    }
}
