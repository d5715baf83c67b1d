//! The gates: what the errors may be, and what is said of them.

use mk_model::Precision;

use super::compare::{GreedyRow, LogitErrors};

/// f32 logits must be this close to transformers' f32, everywhere.
const F32_LIMIT: f32 = 1e-4;

/// One thing that was held against the reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    pub what: String,
    pub passed: bool,
}

/// Mean and largest of some errors.
pub struct Spread {
    pub mean: f32,
    pub worst: f32,
}

/// Of these errors.
pub fn spread<'a>(errors: impl IntoIterator<Item = &'a f32>) -> Spread {
    let (mut sum, mut count, mut worst) = (0.0f64, 0usize, 0.0f32);
    for error in errors {
        (sum, count, worst) = (sum + f64::from(*error), count + 1, worst.max(*error));
    }
    Spread { mean: (sum / count.max(1) as f64) as f32, worst }
}

/// Judges teacher-forced logits. `yardstick` is the error of the reference's own bf16 run.
pub fn logits(
    errors: &LogitErrors,
    yardstick: Option<&[Vec<f32>]>,
    precision: Precision,
) -> Vec<Gate> {
    let stepwise_len = errors.stepwise.len();
    let mut gates = Vec::new();
    for (name, found, positions) in [
        ("in one batch", &errors.batched, None),
        ("token by token", &errors.stepwise, Some(stepwise_len)),
        ("after a prompt", &errors.prefilled, None),
    ] {
        let ours = spread(found);
        match (precision, yardstick) {
            (Precision::F32, _) => gates.push(Gate {
                what: format!(
                    "f32 logits {name}: worst of {} positions {:.2e}, limit {F32_LIMIT:.0e}",
                    found.len(),
                    ours.worst
                ),
                passed: ours.worst <= F32_LIMIT,
            }),
            (Precision::Bf16, Some(yardstick)) => {
                let theirs =
                    spread(yardstick.iter().flatten().take(positions.unwrap_or(usize::MAX)));
                gates.push(Gate {
                    what: format!(
                        "bf16 logits {name}: mean of {} positions {:.2e}, worst {:.2e}; transformers' bf16: {:.2e}, \
                         {:.2e}",
                        found.len(),
                        ours.mean,
                        ours.worst,
                        theirs.mean,
                        theirs.worst
                    ),
                    passed: ours.mean <= theirs.mean && ours.worst <= theirs.worst,
                });
            }
            (Precision::Bf16, None) => {}
        }
    }
    gates
}

/// Whether a greedy token that differs is a near-tie: the two are closer than bf16 can tell apart.
pub fn is_near_tie(row: &GreedyRow, noise: Option<f32>) -> bool {
    noise.is_some_and(|noise| row.margin <= 2.0 * noise)
}

/// Judges greedy tokens. `noise` is the largest error of any of our logits at reduced precision; without it every
/// difference counts.
pub fn greedy(rows: &[GreedyRow], noise: Option<f32>) -> Gate {
    let wrong = rows.iter().filter(|r| r.ours != r.reference && !is_near_tie(r, noise)).count();
    let ties = rows.iter().filter(|r| r.ours != r.reference && is_near_tie(r, noise)).count();
    let ties = match ties {
        0 => String::new(),
        n => format!(", {n} at near-ties within the noise of bf16"),
    };
    Gate {
        what: format!("greedy: {} of {} tokens differ{ties}", wrong, rows.len()),
        passed: wrong == 0,
    }
}

/// Judges a free run of the decoder: it must make the tokens of the table, up to the first that is not the
/// reference's (after which its text is another).
pub fn free_run(rows: &[GreedyRow], ids: &[u32]) -> Gate {
    let comparable = rows.iter().take_while(|r| r.ours == r.reference).count();
    let until = rows.len().min(comparable + 1);
    let expected: Vec<u32> = rows[..until].iter().map(|r| r.ours).collect();
    Gate {
        what: format!("free run: the first {until} tokens are those of the table"),
        passed: ids.get(..until) == Some(&expected[..]),
    }
}
